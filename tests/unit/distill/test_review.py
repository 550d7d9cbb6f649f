from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.distill.builders import Json, chain, distill, done, lines, run, send, verdict

pytestmark = pytest.mark.anyio


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


async def test_a_correction_is_exported_as_what_should_have_been_said(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await fill(client, 1)
        (item,) = await waiting(client)
        evidence_id = item["evidence"]["evidence_id"]
        review = await decide(
            client, evidence_id, decision="correct", by="ann", correction="the right answer"
        )
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
