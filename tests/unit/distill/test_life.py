"""What became of a run: told up to the rows that hold it and the replays of it."""

import shutil
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.unit.distill.builders import Json, chain, distill, done, episode, run, send, verdict

pytestmark = pytest.mark.anyio


async def life(client: httpx.AsyncClient, run_id: str) -> Json:
    response = await client.get(f"/v1/runs/{run_id}", params={"life": "true"})
    assert response.status_code == 200, response.text
    return dict(response.json()["life"])


def stories() -> list[Json]:
    return [*episode("JO-1"), *episode("JO-2"), run("plain", verdict=verdict())]


async def test_it_is_told_where_it_is_asked_for(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await send(client, stories())
        assert (await client.get("/v1/runs/plain")).json()["life"] is None
        assert await life(client, "plain") == {
            "evidence": None,
            "scored": None,
            "episode": [],
            "rows": [],
            "replays": [],
            "complete": True,
        }


async def test_evidence_category_and_the_chain_of_repairs(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await send(client, stories())
        await done(client, stage="materialize")
        assert (await life(client, "JO-1-2"))["scored"] is None
        await done(client, stage="score")
        told = await life(client, "JO-1-2")
    draft, repair = told["episode"]
    assert (draft["run_id"], draft["verdict"], draft["category"]) == ("JO-1-1", "rejected", "rejected")
    assert (repair["run_id"], repair["verdict"], repair["category"]) == ("JO-1-2", "accepted", "accepted")
    assert repair["repair_of"] == draft["evidence_id"]
    assert told["evidence"]["evidence_id"] == told["scored"]["evidence_id"] == repair["evidence_id"]


async def test_the_rows_that_hold_it(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await send(client, stories())
        sft = await chain(client, "sft")
        preference = await chain(client, "preference")
        repaired, draft = await life(client, "JO-1-2"), await life(client, "JO-1-1")
    assert {row["dataset_id"] for row in repaired["rows"]} == {sft["dataset_id"], preference["dataset_id"]}
    assert [row["part"] for row in repaired["rows"]] == ["row", "row"]
    (rejected,) = draft["rows"]
    assert (rejected["dataset_id"], rejected["part"]) == (preference["dataset_id"], "rejected")
    for row in repaired["rows"]:
        lines = (tmp_path / "datasets" / row["dataset_id"] / row["file"]).read_text().splitlines()
        assert "good" in lines[row["line"] - 1]
        assert row["file"] == f"{row['split']}.jsonl"


def replay(evidence_id: str, **fields: Any) -> Json:
    return {
        "schema": "stillhouse.replay",
        "schema_version": "1.0",
        "replay_id": "cheap",
        "evidence_id": evidence_id,
        "arm": "tiny",
        "repeat": 0,
        "mode": "live",
        "outcome": "local_pass",
        "attempts": [{"run_id": "again-1"}],
        **fields,
    }


async def test_the_replays_of_it(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await send(client, stories())
        evidence_id = (await client.get("/v1/runs/plain")).json()["evidence_id"]
        tasks = tmp_path / "replays" / "cheap" / "tasks.jsonl"
        tasks.parent.mkdir(parents=True)
        records = [replay("0" * 64), replay(evidence_id), replay(evidence_id, repeat=1, outcome="failed")]
        tasks.write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in records))
        told = await life(client, "plain")
    assert [(one["repeat"], one["outcome"]) for one in told["replays"]] == [(0, "local_pass"), (1, "failed")]
    assert told["replays"][0]["run_ids"] == ["again-1"]


async def test_the_search_is_bounded_and_says_so(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await send(client, stories())
        await chain(client, "sft")
    async with distill(tmp_path, life_bytes_max=100) as client:
        told = await life(client, "plain")
    assert (told["rows"], told["complete"]) == ([], False)


async def test_a_dataset_that_was_moved_away_is_no_failure(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await send(client, stories())
        await chain(client, "sft")
        shutil.rmtree(tmp_path / "datasets")
        assert (await life(client, "plain"))["rows"] == []
