"""The run itself: the same bytes from any number of processes, and what an end in the middle leaves."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from distill.engine import exports, shards
from distill.engine.pool import Pool
from distill.engine.progress import Progress, Stopped
from schemas.distill import JobRequest
from services.errors import InvalidRequest
from tests.unit.distill.builders import distill, done, episode, run, send, verdict
from tests.unit.distill.exports.stories import various

LETTER = "Dear worker, the shift of {} begins soon and you are asked to bring boots, a vest and a helmet {}"
UNREPEATABLE = ("manifest.json", "receipt.dsse.json")  # they hold a key of the machine, and times


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose evidence lies in several shards, with near duplicates across them."""
    import anyio

    data = tmp_path_factory.mktemp("scored")

    async def story() -> None:
        async with distill(data, segment_bytes_max=16 * 1024) as client:
            for number in range(6):
                letter = LETTER.format(f"Place{number}", " ".join(["x", "y"][: number % 3]))
                await send(client, [run(f"n{number}", question=letter, answer="ok", verdict=verdict())])
                await send(client, episode(f"o{number}"))
                await send(client, various(60)[number * 10 : number * 10 + 10])
            await done(client, stage="materialize")
            await done(client, stage="score")

    anyio.run(story)
    return data


def made(data: Path, pool: Any, progress: Progress | None = None, **options: Any) -> Path:
    request = exports.checked(JobRequest(stage="export", **{"kind": "sft", **options}))
    done = exports.export(data / shards.FOLDER, data, request, pool, progress or Progress())
    return data / "datasets" / done.manifest.dataset_id


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in UNREPEATABLE}


class Backwards(Pool):
    """Does the tasks last to first, and gives the results in the order of the tasks."""

    def map(self, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
        yield from reversed([function(task) for task in reversed(tasks)])


@pytest.mark.parametrize("kind", ["sft", "preference", "rag"])
def test_the_order_of_work_changes_no_byte(scored: Path, tmp_path: Path, kind: str) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for data in (here, there):
        shutil.copytree(scored, data)
    first, second = made(here, Pool(1), kind=kind), made(there, Backwards(1), kind=kind)
    assert first.name == second.name
    assert contents(first) == contents(second)


def test_two_processes_make_what_one_does(scored: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for data in (here, there):
        shutil.copytree(scored, data)
    with Pool(2) as pool:
        first = made(there, pool)
    assert contents(first) == contents(made(here, Pool(1)))
    assert len(shards_of(here)) > 2


def shards_of(data: Path) -> list[Path]:
    return list((data / "distill" / "evidence").iterdir())


class StopAt(Progress):
    """Stops when so much is done."""

    def __init__(self, fraction: float) -> None:
        super().__init__()
        self._limit = fraction

    def reach(self, done: int, total: int, *, start: float = 0.0, end: float = 1.0) -> None:
        super().reach(done, total, start=start, end=end)
        if self.fraction >= self._limit:
            raise Stopped


@pytest.mark.parametrize("kind", ["sft", "preference"])
def test_a_run_that_was_cut_short_goes_on_and_ends_alike(scored: Path, tmp_path: Path, kind: str) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for data in (here, there):
        shutil.copytree(scored, data)
    undisturbed = contents(made(here, Pool(1), kind=kind))
    for fraction in (0.1, 0.3, 0.5, 0.74, 0.85, 0.9, 0.99):
        with pytest.raises(Stopped):
            made(there, Pool(1), StopAt(fraction), kind=kind)
        assert [path.name for path in (there / "datasets").iterdir() if path.name[0] != "."] == []
    resumed = made(there, Pool(1), kind=kind)
    assert contents(resumed) == undisturbed
    assert list((there / "datasets").iterdir()) == [resumed]


def test_what_somebody_changed_in_the_meantime_is_made_again(scored: Path, tmp_path: Path) -> None:
    data, there = tmp_path / "data", tmp_path / "there"
    for folder in (data, there):
        shutil.copytree(scored, folder)
    with pytest.raises(Stopped):
        made(data, Pool(1), StopAt(0.74))
    (work,) = (data / "datasets").glob(".export-*")
    for number, path in enumerate(sorted(work.glob("*.rows"))):
        if number % 2:
            path.write_bytes(path.read_bytes().replace(b"e", b"a"))
    for path in sorted(work.glob("*.rowed"))[::3]:
        path.write_bytes(b"{}")
    assert contents(made(data, Pool(1))) == contents(made(there, Pool(1)))


def test_what_an_other_export_left_is_removed(scored: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(scored, data)
    with pytest.raises(Stopped):
        made(data, Pool(1), StopAt(0.5))
    folder = made(data, Pool(1), kind="rag")
    assert list((data / "datasets").iterdir()) == [folder]


def test_every_row_of_every_split_is_in_one_file_and_groups_are_whole(scored: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(scored, data)
    folder = made(data, Pool(1), shares={"train": 0.4, "validation": 0.3, "holdout": 0.3})
    groups: dict[str, set[str]] = {}
    for split in ("train", "validation", "holdout"):
        for line in (folder / f"{split}.provenance.jsonl").read_bytes().splitlines():
            groups.setdefault(orjson.loads(line)["group"], set()).add(split)
    assert all(len(found) == 1 for found in groups.values())
    assert len({split for found in groups.values() for split in found}) == 3


def test_what_is_not_there_is_refused() -> None:
    for kind, target, param in ((None, None, "kind"), ("kto", None, "kind"), ("sft", "axolotl", "target")):
        with pytest.raises(InvalidRequest) as caught:
            exports.checked(JobRequest(stage="export", kind=kind, target=target))
        assert caught.value.param == param
    assert exports.checked(JobRequest(stage="export", kind="sft")).target == "openai"
