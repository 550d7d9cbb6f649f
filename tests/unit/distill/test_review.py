from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.distill.builders import Json, chain, distill, done, finished, lines, run, send, verdict

pytestmark = pytest.mark.anyio

SPLITS = ("train", "validation", "holdout")


async def waiting(client: httpx.AsyncClient, **params: Any) -> list[Json]:
    response = await client.get("/v1/distill/review", params=params)
    assert response.status_code == 200, response.text
    return list(response.json()["evidence"])


async def decide(client: httpx.AsyncClient, evidence_id: str, **body: Any) -> Json:
    response = await client.post(f"/v1/distill/review/{evidence_id}", json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def sorted_out(client: httpx.AsyncClient) -> None:
    await done(client, stage="materialize")
    await done(client, stage="score")


async def fill(client: httpx.AsyncClient, count: int) -> None:
    await send(client, [run("good", verdict=verdict())])
    await send(client, [run(f"r{number}", verdict=verdict("needs_human_review")) for number in range(count)])
    await sorted_out(client)


async def test_the_queue_is_what_needs_a_person_page_by_page(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        assert await waiting(client) == []
        await fill(client, 5)
        everything = await waiting(client)
        assert {one["scored"]["category"] for one in everything} == {"needs_human_review"}
        found, cursor = [], None
        while True:
            params = {"limit": 2, **({"cursor": cursor} if cursor else {})}
            page = (await client.get("/v1/distill/review", params=params)).json()
            found += page["evidence"]
            if (cursor := page.get("cursor")) is None:
                break
        assert found == everything
        assert len(found) == 5


async def test_a_decision_is_in_the_log_and_takes_the_evidence_off_the_queue(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await fill(client, 2)
        first, second = [one["evidence"]["evidence_id"] for one in await waiting(client)]
        review = await decide(client, first, decision="accept", by="ann", note="fits")
        (segment,) = (tmp_path / "log").glob("*.jsonl")
        assert lines(segment)[-1] == review
        assert review["schema"] == "stillhouse.review"
        assert [one["evidence"]["evidence_id"] for one in await waiting(client)] == [second]
        await sorted_out(client)
        assert [one["evidence"]["evidence_id"] for one in await waiting(client)] == [second]
        scored = (await client.get("/v1/distill/evidence", params={"category": "accepted"})).json()
        of_first = next(one for one in scored["evidence"] if one["evidence"]["evidence_id"] == first)
        assert "review.accepted" in of_first["scored"]["reasons"]
        await decide(client, first, decision="reject", by="bob")  # another opinion: people have to agree
        await sorted_out(client)
        assert len(await waiting(client)) == 2


async def corrected(client: httpx.AsyncClient) -> Json:
    """The one piece that waits, corrected by ann; the review."""
    await fill(client, 1)
    (item,) = await waiting(client)
    return await decide(
        client, item["evidence"]["evidence_id"], decision="correct", by="ann", correction="the right answer"
    )


async def test_a_correction_is_exported_as_what_should_have_been_said(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        review = await corrected(client)
        assert review["correction"]["content"] == "the right answer"
        job = await chain(client, "preference")
        folder = tmp_path / "datasets" / job["dataset_id"]
    rows = [row for path in folder.glob("*.jsonl") if "provenance" not in path.name for row in lines(path)]
    (row,) = [row for row in rows if "preferred_output" in row]
    assert row["preferred_output"][0]["content"] == "the right answer"
    assert row["non_preferred_output"][0]["content"] == "answer r0"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"decision": "maybe"}, "decision"),
        ({"by": ""}, "by"),
        ({"mood": 1}, "mood"),
        ({"correction": "x"}, "correction"),
        ({"decision": "correct"}, "correction"),
        ({"decision": "correct", "correction": " "}, "correction"),
        ({"decision": "correct", "correction": {"content": None}}, "correction"),
    ],
)
async def test_a_decision_that_is_not_clear_is_refused(
    tmp_path: Path, change: dict[str, Any], param: str
) -> None:
    async with distill(tmp_path) as client:
        body = {"decision": "accept", "by": "ann", **change}
        response = await client.post(f"/v1/distill/review/{'0' * 64}", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize(("evidence_id", "status"), [("0" * 64, 404), ("x", 400)])
async def test_a_decision_needs_its_evidence(tmp_path: Path, evidence_id: str, status: int) -> None:
    async with distill(tmp_path) as client:
        body = {"decision": "accept", "by": "ann"}
        for _ in range(2):
            response = await client.post(f"/v1/distill/review/{evidence_id}", json=body)
            assert response.status_code == status
            await fill(client, 1)


async def rows_of(client: httpx.AsyncClient, data: Path, kind: str) -> tuple[list[Json], list[Json]]:
    """The rows of a dataset made now, and their provenance."""
    job = await chain(client, kind)
    files = sorted((data / "datasets" / job["dataset_id"]).glob("*.jsonl"))
    rows = [row for path in files if path.stem in SPLITS for row in lines(path)]
    return rows, [row for path in files if path.stem.endswith(".provenance") for row in lines(path)]


async def test_a_correction_is_what_a_model_learns_and_is_shown(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        review = await corrected(client)
        for kind, answer in (
            ("sft", lambda row: row["messages"][-1]["content"]),
            ("rag", lambda row: row["text"]),
        ):
            rows, provenance = await rows_of(client, tmp_path, kind)
            assert sorted(map(answer, rows)) == ["answer good", "the right answer"]
            names = {one["evidence_id"]: one.get("correction") for one in provenance}
            assert names[review["evidence_id"]] == review["review_id"]


async def test_a_correction_that_somebody_contests_is_exported_nowhere(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        review = await corrected(client)
        await decide(client, review["evidence_id"], decision="reject", by="bob")
        rows, _ = await rows_of(client, tmp_path, "sft")
        assert [row["messages"][-1]["content"] for row in rows] == ["answer good"]
        job = await finished(client, stage="export", kind="preference")
        assert job["error"]["code"] == "nothing_to_export"
        (again,) = await waiting(client)
        assert again["scored"]["reasons"][-1] == "review.disagreement"
        assert (again["state"], again["value"]["disagreement"]) == ("disagreed", 1.0)
        assert [one["by"] for one in again["decisions"]] == ["ann", "bob"]


async def test_decisions_show_at_once_and_in_full(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await fill(client, 3)
        first, second, third = [one["evidence"]["evidence_id"] for one in await waiting(client)]
        assert (await client.get("/v1/distill/review")).json()["waiting"] == 3
        await decide(client, second, decision="reject", by="ann", note="too young")
        page = (await client.get("/v1/distill/review")).json()
        assert [one["evidence"]["evidence_id"] for one in page["evidence"]] == [first, third]
        assert page["waiting"] == 2
        item = (await client.get(f"/v1/distill/review/{second}")).json()
        assert item["evidence"]["review"] == []  # until the next materialize
        assert [(one["by"], one["note"]) for one in item["decisions"]] == [("ann", "too young")]
        assert item["state"] == "decided"
        unknown = await client.get(f"/v1/distill/review/{'0' * 64}")
        assert unknown.json()["error"]["code"] == "evidence_not_found"


async def test_a_second_reviewer_sees_what_the_first_decided(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await fill(client, 2)
        first, second = [one["evidence"]["evidence_id"] for one in await waiting(client)]
        await decide(client, first, decision="accept", by="ann")
        of_bob = await waiting(client, undecided_by="bob")
        assert [one["evidence"]["evidence_id"] for one in of_bob] == [first, second]
        assert [one["evidence"]["evidence_id"] for one in await waiting(client, undecided_by="ann")] == [
            second
        ]


async def test_agreement_is_told_of_every_decision_at_once(tmp_path: Path) -> None:
    async def agreement() -> Json:
        return dict((await client.get("/v1/distill/review/agreement")).json())

    async with distill(tmp_path) as client:
        none = await agreement()
        assert (none["alpha"], none["items"]) == (None, 0)
        assert "two reviewers" in none["reason"]
        await fill(client, 4)
        found = [one["evidence"]["evidence_id"] for one in await waiting(client)]
        for evidence_id, ann, bob in zip(found, "aaar", "aarr", strict=True):
            for by, said in (("ann", ann), ("bob", bob)):
                await decide(client, evidence_id, decision={"a": "accept", "r": "reject"}[said], by=by)
        before = await agreement()
        assert before["alpha"] == pytest.approx(1 - 7 * 2 / (2 * 5 * 3))
        assert (before["items"], before["decisions"], before["reviewers"]) == (4, 8, 2)
        await done(client, stage="materialize")
        assert await agreement() == before  # although `score` has not run
        await done(client, stage="score")
        assert await agreement() == before
        await decide(client, found[2], decision="reject", by="ann")  # who comes round to bob's view
        assert (await agreement())["alpha"] == 1.0


async def test_decisions_are_known_after_a_restart(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await fill(client, 2)
        first, second = [one["evidence"]["evidence_id"] for one in await waiting(client)]
        await decide(client, first, decision="accept", by="ann")
    async with distill(tmp_path) as client:
        assert [one["evidence"]["evidence_id"] for one in await waiting(client)] == [second]


async def test_the_queue_can_be_read_where_score_left_no_note_of_it(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await fill(client, 3)
        before = await waiting(client)
    notes = list((tmp_path / "distill" / "index").glob("*.review"))
    assert notes
    for note in notes:
        note.unlink()
    async with distill(tmp_path) as client:
        assert await waiting(client) == before


@pytest.mark.parametrize(
    ("order", "cursor"), [("id", f"5-{'0' * 64}"), ("value", "0" * 64), ("value", "x"), ("best", "0" * 64)]
)
async def test_a_cursor_of_another_order_is_refused(tmp_path: Path, order: str, cursor: str) -> None:
    async with distill(tmp_path) as client:
        response = await client.get("/v1/distill/review", params={"order": order, "cursor": cursor})
    assert response.status_code == 400
    assert response.json()["error"]["param"] in {"cursor", "order"}


async def test_what_a_replay_brought_up_does_not_wait_for_people(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await send(client, [run("r", verdict=verdict("needs_human_review"), episode_id="replay.1")])
        await fill(client, 1)
        (item,) = await waiting(client)
        assert item["evidence"]["episode_id"] is None
