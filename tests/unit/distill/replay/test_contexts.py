"""Earlier work beside a task: put where the model reads it, recorded, and never the task's own."""

from pathlib import Path
from typing import Any, Self

import httpx
import orjson
import pytest

from tests.unit.distill.builders import Json, done, finished
from tests.unit.distill.contexts.shelf import Shelf
from tests.unit.distill.replay.arms import Arms, folder, recorded, results, task

pytestmark = pytest.mark.anyio

HELPED: dict[str, Any] = {"stage": "replay", "models": ["ollama/small"], "contexts": 2}
NAMES = ("Dayton", "Akron", "Toledo", "Lima")


class Helped(Arms):
    def __init__(self, shelf: Shelf) -> None:
        super().__init__()
        self._shelf = shelf

    async def __aenter__(self) -> Self:
        self.vectord = self._shelf.client()
        return self


def tasks() -> list[Json]:
    return [one for name in NAMES for one in task(name)]


async def counted(client: httpx.AsyncClient) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith("distill_own_group_contexts_total "))
    return float(value)


async def test_earlier_work_goes_with_a_task(tmp_path: Path) -> None:
    peers = Helped(Shelf())
    async with recorded(tmp_path, peers, tasks()) as client:
        await done(client, stage="index")
        job = await done(client, **HELPED)
    by_id = {one["evidence_id"]: one for one in results(tmp_path, job["replay_id"])}
    for one in by_id.values():
        assert len(one["context"]) == 2
        assert one["evidence_id"] not in one["context"]
        assert all(by_id[other]["group"] != one["group"] for other in one["context"])
    system = str(peers.asked[0].messages[0].content)
    assert system.startswith("Be exact.\n\nEarlier work that passed; use what applies:\n\n[1] ")
    assert "\n\n[2] " in system
    manifest = orjson.loads(folder(tmp_path, job["replay_id"])["manifest.json"])
    assert (manifest["name"], manifest["arm"]["collection"]) == ("ollama/small + 2 of distilled", "distilled")


async def test_nothing_indexed_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    peers = Helped(Shelf())
    async with recorded(tmp_path, peers, tasks()) as client:
        job = await finished(client, **HELPED)
    assert job["error"]["code"] == "index_missing"
    assert not peers.asked


async def test_work_of_the_own_group_ends_the_task_whoever_hands_it_out(tmp_path: Path) -> None:
    peers = Helped(Shelf())
    async with recorded(tmp_path, peers, tasks()) as client:
        await done(client, stage="index")
        job = await done(client, **HELPED, mode="refresh")
        victim = results(tmp_path, job["replay_id"])[0]
        calls = tmp_path / "cassettes" / "default" / "calls.jsonl"
        # The index has answered with the task itself, and claims that it is of another group.
        told = calls.read_bytes()
        for context in victim["context"]:
            told = told.replace(context.encode(), victim["evidence_id"].encode())
        calls.write_bytes(told)
        job = await done(client, **HELPED, mode="cassette")
        manifest = orjson.loads(folder(tmp_path, job["replay_id"])["manifest.json"])
        assert manifest["left_out"]["own_group_context"] >= 1
        assert await counted(client) == manifest["left_out"]["own_group_context"]
    assert victim["evidence_id"] not in {one["evidence_id"] for one in results(tmp_path, job["replay_id"])}
