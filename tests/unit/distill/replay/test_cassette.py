"""Replays from a cassette: nothing leaves, a gap is an error, and the bytes are the same each time."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.engine.replay.store import Line, Store
from schemas.iterate import IterateRequest, IterateResponse
from services.errors import Conflict, InvalidRequest
from tests.unit.distill.builders import Json, done, finished, send
from tests.unit.distill.replay.arms import Arms, folder, orders, recorded, task

TAPED: dict[str, Any] = {
    "stage": "replay",
    "models": ["ollama/small", "openai/strong"],
    "cassette": "ci",
    "repeats": 2,
}


async def from_cassette(client: httpx.AsyncClient, **options: Any) -> Json:
    return await done(client, **TAPED, mode="cassette", **options)


@pytest.mark.anyio
async def test_a_cassette_gives_the_same_bytes_without_a_call(tmp_path: Path) -> None:
    peers = Arms()
    async with recorded(tmp_path, peers, orders(12)) as client:
        await done(client, **TAPED, mode="refresh")
        asked = len(peers.asked)
        assert asked == 24
        first = folder(tmp_path, (await from_cassette(client))["replay_id"])
        second = folder(tmp_path, (await from_cassette(client, concurrency=8))["replay_id"])
        cut = [
            folder(tmp_path, (await from_cassette(client, budget_calls=9, name="cut"))["replay_id"])
            for _ in range(2)
        ]
    assert len(peers.asked) == asked
    assert first == second
    assert cut[0] == cut[1]
    assert orjson.loads(cut[0]["manifest.json"])["left_out"]["budget"] > 0


@pytest.mark.anyio
async def test_a_missing_recording_names_the_task_and_the_way_out(tmp_path: Path) -> None:
    peers = Arms()
    async with recorded(tmp_path, peers, orders(3)) as client:
        await done(client, **TAPED, mode="refresh")
        await send(client, task("O-new"))
        await done(client, stage="materialize")
        await done(client, stage="score")
        job = await finished(client, **TAPED, mode="cassette")
        assert job["error"]["code"] == "recording_missing"
        assert "`refresh`" in job["error"]["message"]
        await done(client, **TAPED, mode="refresh")
        job = await from_cassette(client)
    assert job["counts"]["in"] == 8


@pytest.mark.anyio
async def test_a_refresh_takes_the_place_of_what_was_recorded(tmp_path: Path) -> None:
    class Changing(Arms):
        text = "a"

        def solve(self, request: IterateRequest, episode_id: str) -> IterateResponse:
            answer = super().solve(request, episode_id)
            attempts = [*answer.attempts[:-1], answer.attempts[-1].model_copy(update={"artifact": self.text})]
            return answer.model_copy(update={"attempts": attempts})

    peers = Changing()
    async with recorded(tmp_path, peers, orders(3)) as client:
        await done(client, **TAPED, mode="refresh")
        peers.text = "b"
        await done(client, **TAPED, mode="refresh")
        job = await from_cassette(client)
    tasks = folder(tmp_path, job["replay_id"])["tasks.jsonl"].splitlines()
    assert {orjson.loads(line)["text"] for line in tasks} == {"b"}
    assert len((tmp_path / "cassettes" / "ci" / "calls.jsonl").read_bytes().splitlines()) == 6


@pytest.mark.anyio
async def test_verdicts_on_recorded_answers_come_from_the_cassette_too(tmp_path: Path) -> None:
    peers = Arms()
    async with recorded(tmp_path, peers, orders(3)) as client:
        await done(client, stage="replay", recorded=True, mode="refresh")
        judged = len(peers.judged)
        await done(client, stage="replay", recorded=True, mode="cassette")
    assert judged == len(peers.judged) == 3


@pytest.mark.anyio
async def test_a_refusal_is_an_answer_too(tmp_path: Path) -> None:
    class Refusing(Arms):
        def solve(self, request: IterateRequest, episode_id: str) -> IterateResponse:
            if "O-0001" in str(request.messages):
                raise InvalidRequest("too long", code="context_length_exceeded")
            return super().solve(request, episode_id)

    async with recorded(tmp_path, Refusing(), orders(3)) as client:
        await done(client, **TAPED, mode="refresh")
        job = await from_cassette(client)
    manifest = orjson.loads(folder(tmp_path, job["replay_id"])["manifest.json"])
    assert manifest["left_out"] == {"refused.context_length_exceeded": 2}


class Held(Arms):
    """Answers so many tasks, and then no more for a long time."""

    left = 5

    async def iterate(self, request: IterateRequest, episode_id: str) -> IterateResponse:
        if self.left == 0:
            await asyncio.sleep(60)
        self.left -= 1
        return await super().iterate(request, episode_id)


@pytest.mark.anyio
async def test_a_replay_that_was_stopped_goes_on_with_what_it_had(tmp_path: Path) -> None:
    held = Held()
    async with recorded(tmp_path, held, orders(8)) as client:
        body = {**TAPED, "mode": "refresh", "concurrency": 1}
        await client.post("/v1/distill/jobs", json=body)
        while held.left:  # noqa: ASYNC110 - the job works in an event loop of its own
            await asyncio.sleep(0.01)
    peers = Arms()
    async with recorded(tmp_path, peers) as client:
        await done(client, **body)
        job = await from_cassette(client)
    assert (held.left, len(peers.asked)) == (0, 11)
    assert job["counts"]["in"] == 16


# --- the store ----------------------------------------------------------------------------------


def key_of(line: Line) -> tuple[str, int]:
    return line["key"], 0


def store(path: Path, **limits: int) -> Store:
    return Store(path, key_of, **{"bytes_max": 1 << 20, **limits})


LINES = st.lists(st.tuples(st.sampled_from("abcd"), st.text(max_size=5)), min_size=1, max_size=12)


@given(lines=LINES, cut=st.integers(0, 10**6))
def test_a_torn_store_holds_every_line_before_the_tear(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[str, str]], cut: int
) -> None:
    path = tmp_path_factory.mktemp("store") / "x.jsonl"
    with store(path) as opened:
        for key, value in lines:
            opened.put({"key": key, "value": value})
    content = path.read_bytes()
    kept = content[: cut % (len(content) + 1)]
    path.write_bytes(kept)
    expected = {one["key"]: one for one in map(orjson.loads, kept.split(b"\n")[:-1])}
    with store(path) as opened:
        assert [*opened.sorted()] == [expected[key] for key in sorted(expected)]
        opened.put({"key": "a", "value": "new"})
        opened.compact()
        assert opened.get(("a", 0)) == {"key": "a", "value": "new"}
    assert len(path.read_bytes().splitlines()) == len(expected.keys() | {"a"})


def test_a_store_that_is_full_or_damaged_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with store(path, bytes_max=40) as opened:
        opened.put({"key": "a", "value": "b"})
        with pytest.raises(Conflict, match="at most 40 in all"):
            opened.put({"key": "b", "value": "c" * 40})
    path.write_bytes(b"nonsense\n" + path.read_bytes())
    with pytest.raises(Conflict, match="damaged at byte 0"), store(path):
        pass
