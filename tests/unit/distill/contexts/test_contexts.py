"""What is indexed, what is found again, and what is never shown to its own group."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from distill.app import create_app
from distill.backends import FakePeers
from distill.engine.contexts import Contexts, Groups, Passage
from distill.engine.library import Item, Library
from distill.engine.pool import Pool
from distill.engine.progress import Progress
from schemas.iterate import IterateRequest, IterateResponse
from schemas.verdicts import ValidateRequest, Verdict
from services.errors import Conflict
from services.testing import client_for
from tests.unit.distill.builders import (
    Json,
    done,
    episode,
    evidence,
    finished,
    run,
    send,
    settings_for,
    verdict,
    verdict_record,
)
from tests.unit.distill.contexts.families import families, family, family_of
from tests.unit.distill.contexts.shelf import Shelf

Answer = TypeVar("Answer")


def _not_asked(*_: Any) -> Any:
    raise AssertionError("neither models nor validators are asked")


@contextlib.asynccontextmanager
async def distill(data: Path, shelf: Shelf) -> AsyncIterator[httpx.AsyncClient]:
    answer: Callable[[IterateRequest, str], IterateResponse] = _not_asked
    judge: Callable[[ValidateRequest], Verdict] = _not_asked
    app = create_app(settings_for(data), peers=lambda: FakePeers(answer, judge, shelf.client()))
    async with client_for(app) as client:
        yield client


async def indexed(client: httpx.AsyncClient, records: list[Json], **request: Any) -> Json:
    """Send records, run all stages, and return the job of the last."""
    await send(client, records)
    await done(client, stage="materialize")
    await done(client, stage="score")
    return await done(client, stage="index", **request)


def filled(data: Path, records: list[Json], shelf: Shelf | None = None) -> Shelf:
    """A folder whose evidence is indexed."""
    there = shelf or Shelf()

    async def story() -> None:
        async with distill(data, there) as client:
            await indexed(client, records)

    asyncio.run(story())
    return there


def groups_of(data: Path) -> Groups:
    return Groups.of_library(data, Pool(1), Progress())


def with_contexts(
    data: Path,
    shelf: Shelf,
    ask: Callable[[Contexts, Library], Awaitable[Answer]],
    counter: Counter | None = None,
) -> Answer:
    async def story() -> Answer:
        library = Library(data / "distill")
        async with shelf.client() as vectord:
            return await ask(Contexts(library, groups_of(data), vectord, counter=counter), library)

    return asyncio.run(story())


def found(data: Path, shelf: Shelf, key: str, k: int = 5) -> list[Passage]:
    """What is found for the task of this order."""

    async def ask(contexts: Contexts, library: Library) -> list[Passage]:
        return await contexts.retrieve(task_of(library, data, key), k)

    return with_contexts(data, shelf, ask)


def task_of(library: Library, data: Path, key: str) -> Item:
    wanted = next(one for one in evidence(data) if (one["task"] or {}).get("key") == key)
    item = library.item(wanted["evidence_id"])
    assert item is not None
    return item


def keys(data: Path) -> dict[str, str]:
    return {one["evidence_id"]: one["task"]["key"] for one in evidence(data) if one["task"]}


# --- the index --------------------------------------------------------------------------------


def test_accepted_work_is_indexed_once_and_then_only_what_is_new(tmp_path: Path) -> None:
    shelf = Shelf()

    async def story() -> None:
        async with distill(tmp_path, shelf) as client:
            first = await indexed(client, [*family(1), run("unjudged")])
            assert first["counts"] == {
                "in": 9, "sent": 8, "unchanged": 0, "removed": 0, "category.needs_human_review": 1,
            }  # fmt: skip
            again = await done(client, stage="index")
            assert again["counts"]["unchanged"] == 8
            more = await indexed(client, list(family(2)))
            assert (more["counts"]["sent"], more["counts"]["unchanged"]) == (8, 8)

    asyncio.run(story())
    (point, *_) = shelf.points["distilled-open"].values()
    assert sorted(point["payload"]) == ["episode", "evidence_id", "fingerprint", "group", "kind", "order"]
    assert "Order F" in point["text"]
    assert "We asked" in point["text"]


def test_personal_data_is_masked_as_in_an_export(tmp_path: Path) -> None:
    shelf = filled(tmp_path, [run("r", answer="Call 312-555-0143.", verdict=verdict())])
    (point,) = shelf.points["distilled-open"].values()
    assert point["text"].endswith("Call [PHONE_1].")


def test_what_is_accepted_no_more_is_removed(tmp_path: Path) -> None:
    shelf = Shelf()

    async def story() -> None:
        async with distill(tmp_path, shelf) as client:
            await indexed(client, list(family(1)))
            shelf.points["distilled-open"]["stranger"] = {"id": "stranger", "text": "x", "payload": {}}
            job = await indexed(
                client, [verdict_record("f1-3", "rejected", "fill.underage", ts="2026-11-03T00:00:00Z")]
            )
            assert job["counts"]["removed"] == 2
            assert job["counts"]["category.rejected"] == 1

    asyncio.run(story())
    assert len(shelf.points["distilled-open"]) == 7


def test_a_correction_takes_the_place_of_the_answer(tmp_path: Path) -> None:
    shelf = Shelf()

    async def story() -> None:
        async with distill(tmp_path, shelf) as client:
            await indexed(client, [run("r", answer="Half right.", verdict=verdict())])
            (known,) = evidence(tmp_path)
            decided = await client.post(
                f"/v1/distill/review/{known['evidence_id']}",
                json={"decision": "correct", "by": "ann", "correction": "All right."},
            )
            assert decided.status_code == 200, decided.text
            job = await indexed(client, [])
            assert (job["counts"]["sent"], job["counts"]["in"]) == (1, 1)

    asyncio.run(story())
    (point,) = shelf.points["distilled-open"].values()
    assert point["text"].endswith("\n\nAll right.")


def test_a_bridge_between_two_groups_brings_the_labels_up_to_date(tmp_path: Path) -> None:
    steps = list(family(1))
    first, bridge, last = steps[3], steps[4], steps[5]
    shelf = Shelf()

    async def story() -> None:
        async with distill(tmp_path, shelf) as client:
            await indexed(client, [first, last])
            assert len({point["payload"]["group"] for point in shelf.points["distilled-open"].values()}) == 2
            job = await indexed(client, [bridge])
            assert job["counts"]["sent"] == 2
            assert len({point["payload"]["group"] for point in shelf.points["distilled-open"].values()}) == 1

    asyncio.run(story())


def test_work_behind_a_role_is_behind_the_gate(tmp_path: Path) -> None:
    def behind(name: str, *roles: str) -> Json:
        texts = [
            {"collection": "c", "id": role, "role": role, "score": 1.0, "text": role, "text_sha256": "0" * 64}
            for role in roles
        ]
        return run(name, retrieved_context=texts, verdict=verdict())

    shelf = Shelf(catalogue=["welder"])

    async def story() -> Json:
        async with distill(tmp_path, shelf) as client:
            records = [behind("w", "welder"), behind("none"), behind("two", "welder", "rigger")]
            return await indexed(client, [*records, behind("odd", "astronaut")])

    counts = asyncio.run(story())["counts"]
    assert (counts["sent"], counts["role.several"], counts["role.unknown"]) == (2, 1, 1)
    assert shelf.specs["distilled"]["gated"]
    assert [point["role"] for point in shelf.points["distilled"].values()] == ["welder"]
    assert not shelf.specs["distilled-open"]["gated"]
    assert len(shelf.points["distilled-open"]) == 1


def test_a_point_that_vectord_refuses_does_not_hold_up_the_others(tmp_path: Path) -> None:
    shelf = Shelf(refuses="unspeakable")

    async def story() -> Json:
        async with distill(tmp_path, shelf) as client:
            return await indexed(
                client, [*family(1), run("bad", answer="unspeakable things", verdict=verdict())]
            )

    counts = asyncio.run(story())["counts"]
    assert (counts["sent"], counts["vectord.refused"], counts["in"]) == (8, 1, 9)


def test_a_run_that_broke_off_is_taken_up(tmp_path: Path) -> None:
    shelf = Shelf(calls_left=2)

    async def story() -> None:
        async with distill(tmp_path, shelf) as client:
            await send(client, families(20))
            await done(client, stage="materialize")
            await done(client, stage="score")
            broken = await finished(client, stage="index")
            assert broken["error"]["code"] == "vectord_down"
            shelf.calls_left = 1 << 30
            job = await done(client, stage="index")
            assert (job["counts"]["sent"], job["counts"]["unchanged"]) == (32, 128)

    asyncio.run(story())
    sent = [one for batch in shelf.upserts for one in batch]
    assert len(sent) == len(set(sent)) == 160


@pytest.mark.parametrize(
    ("request_", "param"),
    [({"salt": "x"}, "salt"), ({"collection": "c" * 64}, "collection"), ({"seed": 1}, "seed")],
)
def test_what_the_stage_cannot_be_told(tmp_path: Path, request_: Json, param: str) -> None:
    async def story() -> None:
        async with distill(tmp_path, Shelf()) as client:
            answer = await client.post("/v1/distill/jobs", json={"stage": "index", **request_})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)

    asyncio.run(story())


def test_another_kind_of_collection_is_not_written_to(tmp_path: Path) -> None:
    shelf = filled(tmp_path, list(family(1)))

    async def story() -> Json:
        async with distill(tmp_path, shelf) as client:
            return await finished(client, stage="index", embed_model="another")

    assert asyncio.run(story())["error"]["code"] == "collection_exists"


# --- groups -----------------------------------------------------------------------------------


def test_families_are_groups(tmp_path: Path) -> None:
    filled(tmp_path, [*families(6), *episode("o1")])
    groups = groups_of(tmp_path)
    work = [one for one in evidence(tmp_path) if one["task"]["kind"] == "email"]
    named = {family_of(one): set[str | None]() for one in work}
    for one in work:
        named[family_of(one)].add(groups.of(one["evidence_id"]))
    assert all(len(names) == 1 for names in named.values())
    assert len(set.union(*named.values())) == 6
    repair = {groups.of(one["evidence_id"]) for one in evidence(tmp_path) if one["task"]["kind"] == "fill"}
    assert len(repair) == 1
    assert groups.of("0" * 64) is None


@pytest.mark.parametrize("number", [382, 669, 733, 842, 849, 1244])
def test_no_link_of_a_chain_is_lost_where_texts_before_it_are_like_one_end_alone(
    tmp_path: Path, number: int
) -> None:
    filled(tmp_path, list(family(number)))
    groups = groups_of(tmp_path)
    assert len({groups.of(one["evidence_id"]) for one in evidence(tmp_path)}) == 1


def test_groups_are_the_same_from_what_is_remembered(tmp_path: Path) -> None:
    filled(tmp_path, families(2))
    first = groups_of(tmp_path).entries.tobytes()
    folder = tmp_path / "distill" / "index" / "groups"
    remembered = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert groups_of(tmp_path).entries.tobytes() == first
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == remembered
    (folder / "000000.columns.npy").write_bytes(b"changed")
    (folder / "known").unlink()
    assert groups_of(tmp_path).entries.tobytes() == first


def test_replays_are_neither_tasks_nor_examples(tmp_path: Path) -> None:
    records = [{**one, "episode_id": f"replay.{one['run_id']}"} for one in family(1)]
    shelf = filled(tmp_path, [*records, *family(2)])
    assert len(shelf.points["distilled-open"]) == 8
    assert len(groups_of(tmp_path)) == 8


# --- retrieval --------------------------------------------------------------------------------


@pytest.mark.parametrize("filters", [True, False], ids=["fresh", "an index that filters nothing"])
def test_no_task_is_shown_its_own_group_and_every_task_is_shown_others(tmp_path: Path, filters: bool) -> None:
    shelf = filled(tmp_path, families(4))
    shelf.filters = filters
    known = keys(tmp_path)

    async def ask(contexts: Contexts, library: Library) -> int:
        for name, key in known.items():
            item = library.item(name)
            assert item is not None
            passages = await contexts.retrieve(item, 5)
            own = family_of({"task": {"key": key}})
            assert own not in {family_of({"task": {"key": known[one.evidence_id]}}) for one in passages}
            assert len({one.evidence_id for one in passages}) == 5
        return contexts.caught["own_group"]

    caught = with_contexts(tmp_path, shelf, ask)
    assert caught == 0 if filters else caught >= len(known)


def test_a_stale_index_shows_no_bridge_to_the_own_group(tmp_path: Path) -> None:
    steps = list(family(1))
    shelf = filled(tmp_path, [steps[3], steps[5], *family(2)])

    async def story() -> None:
        async with distill(tmp_path, shelf) as client:
            await send(client, [steps[4]])
            await done(client, stage="materialize")
            await done(client, stage="score")

    asyncio.run(story())
    assert {keys(tmp_path)[one.evidence_id][:2] for one in found(tmp_path, shelf, "F1-3")} == {"F2"}


def test_a_near_duplicate_of_what_is_no_evidence_gives_away_its_group(tmp_path: Path) -> None:
    shelf = filled(tmp_path, [*list(family(1))[:5], *family(2)])
    foreign = tmp_path / "foreign"
    filled(foreign, [list(family(1))[5]])
    known = keys(tmp_path)
    registry = CollectorRegistry()

    async def ask(contexts: Contexts, _: Library) -> None:
        item = task_of(Library(foreign / "distill"), foreign, "F1-5")
        passages = await contexts.retrieve(item, 8)
        assert {known[one.evidence_id][:2] for one in passages} == {"F2"}
        assert contexts.caught["near_duplicate"] == 5

    with_contexts(tmp_path, shelf, ask, Counter("caught", "Held back.", ["reason"], registry=registry))
    assert registry.get_sample_value("caught_total", {"reason": "near_duplicate"}) == 5


def test_what_is_no_evidence_is_not_shown(tmp_path: Path) -> None:
    shelf = filled(tmp_path, families(2))
    for strange in ("0" * 64, "note-1"):
        shelf.points["distilled-open"][strange] = {
            "id": strange, "text": shelf.points["distilled-open"][next(iter(keys(tmp_path)))]["text"],
            "payload": {},
        }  # fmt: skip
    for key in ("F0-1", "F1-1"):
        assert {one.evidence_id for one in found(tmp_path, shelf, key)} <= set(keys(tmp_path))


def test_a_role_that_nobody_knows_any_more_sees_what_is_behind_none(tmp_path: Path) -> None:
    text = {
        "collection": "c",
        "id": "1",
        "role": "welder",
        "score": 1.0,
        "text": "t",
        "text_sha256": "0" * 64,
    }
    welders = [{**one, "retrieved_context": [text]} for one in [*family(1), *family(2)]]
    shelf = filled(tmp_path, [*welders, *family(3)])
    assert {keys(tmp_path)[one.evidence_id][:2] for one in found(tmp_path, shelf, "F1-1", 16)} == {"F2", "F3"}
    assert {keys(tmp_path)[one.evidence_id][:2] for one in found(tmp_path, shelf, "F3-1", 16)} == set()
    shelf.catalogue = ["rigger"]
    assert {keys(tmp_path)[one.evidence_id][:2] for one in found(tmp_path, shelf, "F1-1", 16)} == {"F3"}


def test_an_index_of_nothing_is_an_index(tmp_path: Path) -> None:
    (one,) = list(family(1))[:1]
    replay = {**one, "run_id": "again", "episode_id": "replay.1"}
    shelf = filled(tmp_path, [{**one, "verdict": verdict("rejected", "fill.underage")}, replay])
    assert shelf.points == {"distilled-open": {}}
    assert found(tmp_path, shelf, "F1-0") == []


def test_there_are_no_groups_where_there_are_only_replays(tmp_path: Path) -> None:
    filled(tmp_path, [{**one, "episode_id": "replay.1"} for one in family(1)])
    assert len(groups_of(tmp_path)) == 0


def test_without_an_index_there_is_nothing_to_retrieve_from(tmp_path: Path) -> None:
    shelf = filled(tmp_path, families(1))
    shelf.specs.clear()
    with pytest.raises(Conflict, match="run the stage `index` first"):
        found(tmp_path, shelf, "F0-1")
