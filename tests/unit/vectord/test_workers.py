"""Rebuilding an index in a process of its own: what is written meanwhile stays, what is deleted is gone."""

import pathlib
import random
import shutil
import threading
from collections.abc import Iterator

import pytest

from vectord.backends import Query, Record, ShardSpec, StoreError, Where, WorkerStore, generations
from vectord.backends.workers import LOG_FOLDER

DIMENSION = 8
TURNS_MAX = 1000
SPEC = ShardSpec(dimension=DIMENSION, distance="cosine", hybrid=True, payload_indexes={"n": "integer"})


@pytest.fixture(scope="module")
def workers() -> Iterator[WorkerStore]:
    workers = WorkerStore(processes=1, call_timeout_s=60)
    yield workers
    workers.close()


def record(number: int, text: str = "first") -> Record:
    random_ = random.Random(number)
    vector = [random_.gauss(0, 1) for _ in range(DIMENSION)]
    return Record(number, vector, text, payload={"n": number})


def test_what_changes_during_a_rebuild_is_carried_over(workers: WorkerStore, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "s"
    workers.create(folder, SPEC)
    shard = workers.open(folder, SPEC)
    for start in range(0, 2000, 500):
        shard.upsert([record(number) for number in range(start, start + 500)])
    rebuild = threading.Thread(target=shard.optimize)
    rebuild.start()
    turn, deleted, written = 0, set(), set()
    while turn < TURNS_MAX and (rebuild.is_alive() or turn < 3):
        first = 20 * turn
        shard.delete([first % 2000])
        deleted.add(first % 2000)
        changed = [(first + 7) % 2000, 5000 + turn]
        shard.upsert([record(number, "second") for number in changed])
        written.update(changed)
        found = shard.search(Query(1, record(5000 + turn).vector), Where())
        assert found[0].record.id == 5000 + turn
        turn += 1
    rebuild.join()
    there = {
        one.id: one
        for one in shard.scroll(Where(), limit=2000 + TURNS_MAX, cursor=None, with_vector=True).records
    }
    assert there.keys() == (set(range(2000)) | written) - deleted
    assert {number for number, one in there.items() if one.text == "second"} == written - deleted
    assert generations.current(folder) != folder
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["CURRENT", generations.current(folder).name]
    )
    shard.close()
    again = workers.open(folder, SPEC)
    assert again.info().points == len(there)
    assert len(again.search(Query(50, text="second"), Where())) == min(50, len(written - deleted))
    again.close()


@pytest.mark.parametrize("rebuilt", [False, True])
def test_what_was_flushed_is_made_anew_from_the_log_alone(
    workers: WorkerStore, tmp_path: pathlib.Path, *, rebuilt: bool
) -> None:
    """As after a power loss that took everything but what a flush has synced."""
    folder, saved = tmp_path / "s", tmp_path / "saved"
    workers.create(folder, SPEC)
    shard = workers.open(folder, SPEC)
    shard.upsert([record(number) for number in range(100)])
    if rebuilt:
        shard.optimize()
    shutil.copytree(folder, saved)
    shard.upsert([record(number) for number in range(100, 1100)])
    shard.delete(list(range(50)))
    shard.flush()
    shutil.rmtree(generations.current(saved) / LOG_FOLDER)
    shutil.copytree(generations.current(folder) / LOG_FOLDER, generations.current(saved) / LOG_FOLDER)
    shard.close()
    shard = workers.open(saved, SPEC)
    there = shard.scroll(Where(), limit=2000, cursor=None, with_vector=True).records
    assert {one.id for one in there} == set(range(50, 1100))
    assert there[-1].text == "first"
    shard.close()


def test_a_rebuild_that_did_not_end_leaves_nothing(workers: WorkerStore, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "s"
    workers.create(folder, SPEC)
    (folder / "generation-0123").mkdir()
    (folder / "generation-0123" / "half").write_text("x")
    shard = workers.open(folder, SPEC)
    shard.upsert([record(1)])
    shard.optimize()
    shard.close()
    assert not (folder / "generation-0123").exists()
    again = workers.open(folder, SPEC)
    assert again.info().points == 1
    again.close()


def test_a_pointer_to_elsewhere_is_not_followed(workers: WorkerStore, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "s"
    workers.create(folder, SPEC)
    (folder / "CURRENT").write_text("../other")
    with pytest.raises(StoreError, match="CURRENT"):
        workers.open(folder, SPEC)


def test_holes_stay_holes(tmp_path: pathlib.Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "file").open("wb") as file:
        file.write(b"head")
        file.seek(8 * 1024 * 1024)
        file.write(b"tail")
        file.truncate(16 * 1024 * 1024)
    (source / "empty").touch()
    generations.copy(source, tmp_path / "target")
    copied = tmp_path / "target" / "file"
    assert copied.read_bytes() == (source / "file").read_bytes()
    assert copied.stat().st_blocks <= (source / "file").stat().st_blocks
    assert (tmp_path / "target" / "empty").read_bytes() == b""


def test_a_call_that_breaks_ends_nobody_elses(workers: WorkerStore, tmp_path: pathlib.Path) -> None:
    workers.create(tmp_path / "shard", SPEC)
    shard = workers.open(tmp_path / "shard", SPEC)
    before = shard.pid
    with pytest.raises(StoreError, match="TypeError"):
        shard.get(None, with_vector=False)  # type: ignore[arg-type] # the point of the test
    assert shard.info().points == 0
    assert shard.pid == before
    shard.close()
