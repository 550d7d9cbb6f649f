"""The hop: many calls in one frame, each answered as soon as it can be, none waiting for another."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from embedd.settings import Settings
from schemas import hop
from schemas.hop import Answered, Call, Refused
from services.h1 import Exchange, H1Client
from tests.unit.embedd.served import PATIENCE_S, Gated, Served, served
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.enable_socket]


def call(call_id: int, *texts: str, **changes: Any) -> Call:
    return Call(call_id, f"request-{call_id}", "", "fake", None, False, None, "float", list(texts))._replace(
        **changes
    )


class Frame:
    """A frame that was sent, and the parts of its answer one by one."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._reader = hop.PartReader()
        self._parts: list[Answered | Refused] = []

    async def status(self) -> int:
        async with asyncio.timeout(PATIENCE_S):
            return await self._exchange.head()

    async def part(self) -> Answered | Refused | None:
        """The next part; None at the end of the answer."""
        async with asyncio.timeout(PATIENCE_S):
            while not self._parts:
                data = await self._exchange.read()
                if not data:
                    assert self._reader.clean
                    return None
                self._parts += self._reader.feed(data)
        return self._parts.pop(0)

    def leave(self) -> None:
        self._exchange.close()


class Gateway:
    def __init__(self, client: H1Client) -> None:
        self._client = client

    async def send(self, calls: Sequence[Call], cancelled: Sequence[int] = (), source: str = "g") -> Frame:
        return await self.send_bytes(hop.encode_request(source, calls, cancelled))

    async def send_bytes(self, body: bytes) -> Frame:
        return Frame(await self._client.send(b"POST", hop.PATH.encode(), [], body))


@asynccontextmanager
async def gateway(to: Served) -> AsyncIterator[Gateway]:
    async with H1Client(to.url, connect_timeout_s=5.0) as client:
        yield Gateway(client)


async def test_calls_are_answered_as_they_are_done_and_cached_ones_at_once() -> None:
    backend = Gated()
    async with served(backend) as embedd, gateway(embedd) as sender:
        first = await sender.send([call(1, "a", "b")])
        warm = await first.part()
        assert isinstance(warm, Answered)
        assert (warm.id, warm.digest, warm.hits, warm.misses, warm.tokens) == (1, "sha256:0", 0, 2, [1, 1])
        np.testing.assert_allclose(orjson.loads(warm.fragments[1]), backend.vector("b"), rtol=1e-6)
        assert await first.part() is None

        frame = await sender.send([call(2, "slow"), call(3, "b", encoding="base64", dimensions=3)])
        cached = await frame.part()
        assert isinstance(cached, Answered)
        assert (cached.id, cached.hits, cached.misses) == (3, 1, 0)
        vector = np.frombuffer(base64.b64decode(orjson.loads(cached.fragments[0])), "<f4")
        expected = backend.vector("b")[:3]
        np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), rtol=1e-6)

        quick = await sender.send([call(4, "c")])  # while the other frame is still open
        assert (part := await quick.part()) is not None
        assert part.id == 4
        backend.gate.set()
        last = await frame.part()
        assert isinstance(last, Answered)
        assert last.id == 2
        assert await frame.part() is None
        await until(lambda: embedd.idle)


async def test_a_frame_of_cached_calls_is_answered_whole_with_a_request_id_and_counted() -> None:
    async with served(Gated()) as embedd, httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as client:
        url, body = f"{embedd.url}{hop.PATH}", hop.encode_request("g", [call(1, "a"), call(2, "a", "b")], [])
        await client.post(url, content=body)
        answer = await client.post(url, content=body, headers={"x-request-id": "mine"})
        figures = (await client.get(f"{embedd.url}/metrics")).text
    parts = hop.PartReader().feed(answer.content)
    assert [part.id for part in parts] == [1, 2]
    assert all(isinstance(part, Answered) and not part.misses for part in parts)
    assert answer.headers["content-type"] == hop.CONTENT_TYPE.decode()
    assert answer.headers["x-request-id"] == "mine"
    assert "embedd_cache_hits_total 3.0" in figures


async def test_a_call_that_cannot_be_served_is_refused_alone() -> None:
    async with served(Gated()) as embedd, gateway(embedd) as sender:
        frame = await sender.send(
            [
                call(1, ""),
                call(2, "a"),
                call(3, "a", model="none"),
                call(4, "b", "poison"),
                call(5, "a", dimensions=9),
                call(6, *["x"] * 2049),
            ]
        )
        parts = {}
        while (part := await frame.part()) is not None:
            parts[part.id] = part
        async with httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as client:
            figures = (await client.get(f"{embedd.url}/metrics")).text
    assert "embedd_cache_hits_total 0.0" in figures, "what is refused was not found"
    assert isinstance(parts.pop(2), Answered)
    said = {
        part.id: (part.status, part.error.param, part.error.request_id)
        for part in parts.values()
        if isinstance(part, Refused)
    }
    assert said == {
        1: (400, "input.0", "request-1"),
        3: (404, "model", "request-3"),
        4: (400, "input.1", "request-4"),
        5: (400, "dimensions", "request-5"),
        6: (400, "input", "request-6"),
    }


async def test_a_full_queue_is_a_refusal_that_says_when_to_come_again() -> None:
    backend = Gated()
    settings = Settings(inputs_max=2, waiting_max=2, upstream_concurrency_max=1)
    async with served(backend, settings) as embedd, gateway(embedd) as sender:
        first = await sender.send([call(1, "slow")])
        await until(lambda: backend.waiting)
        second = await sender.send([call(2, "a", "b")])
        await until(lambda: embedd.engine._pool._waiting == 2)
        refused = await (await sender.send([call(3, "c")])).part()
        assert isinstance(refused, Refused)
        assert (refused.status, refused.retry_after_s) == (429, 1.0)
        backend.gate.set()
        assert isinstance(await first.part(), Answered)
        assert isinstance(await second.part(), Answered)


async def test_a_call_that_is_taken_back_ends_its_work_and_nobody_elses() -> None:
    backend = Gated()
    settings = Settings(batch_items_max=1)
    async with served(backend, settings) as embedd, gateway(embedd) as sender:
        frame = await sender.send([call(1, "slow one"), call(2, "slow two")])
        await until(lambda: backend.waiting == 2)
        strangers = await sender.send([], [1], source="another gateway")
        assert await strangers.part() is None
        assert backend.cancelled == 0
        assert await (await sender.send([], [1, 77])).part() is None
        taken_back = await frame.part()
        assert isinstance(taken_back, Refused)
        assert (taken_back.id, taken_back.status, taken_back.error.code) == (1, 499, "client_gone")
        await until(lambda: backend.cancelled == 1)
        backend.gate.set()
        other = await frame.part()
        assert isinstance(other, Answered)
        assert other.id == 2
        assert await frame.part() is None
        await until(lambda: embedd.idle)


async def test_a_gateway_that_leaves_takes_all_its_work_with_it() -> None:
    backend = Gated()
    async with served(backend) as embedd, gateway(embedd) as sender:
        for number in range(100):
            frame = await sender.send([call(1, f"slow {number}"), call(2, "slow too")])
            await frame.status()
            frame.leave()
        await until(lambda: embedd.idle)
        assert backend.waiting == 0
        backend.gate.set()
        assert isinstance(await (await sender.send([call(3, "slow too")])).part(), Answered)


GOOD: list[Any] = list(call(1, "a"))


def spoilt(place: int, value: Any) -> bytes:
    return orjson.dumps(["g", [[*GOOD[:place], value, *GOOD[place + 1 :]]], []])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{}",
        b"null",
        b"[1,[],[]]",
        b'["g",[],5]',
        b'["g",[[1,2,3]],[]]',
        b'["g",[5],[]]',
        orjson.dumps(["g", [GOOD], [{}]]),
        orjson.dumps(["g", [GOOD], ["x"]]),
        spoilt(0, "1"),
        spoilt(1, None),
        spoilt(3, 5),
        spoilt(4, "poem"),
        spoilt(4, []),
        spoilt(5, "yes"),
        spoilt(6, "8"),
        spoilt(6, 0),
        spoilt(6, True),
        spoilt(7, "hex"),
        spoilt(8, "text"),
        spoilt(8, None),
    ],
)
async def test_what_is_no_frame_is_a_400_and_harms_nobody(body: bytes) -> None:
    async with served(Gated()) as embedd, httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as client:
        url = f"{embedd.url}{hop.PATH}"
        await client.post(url, content=hop.encode_request("g", [call(1, "a")], []))
        answer = await client.post(url, content=body)
        assert answer.status_code == 400
        assert "frame" in answer.json()["error"]["message"]
        assert (await client.get(url)).status_code == 405
        good = await client.post(url, content=hop.encode_request("g", [call(1, "a")], []))
        assert good.status_code == 200


async def test_token_ids_are_refused_with_the_way_out() -> None:
    async with served(Gated()) as embedd, httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as client:
        answer = await client.post(f"{embedd.url}{hop.PATH}", content=spoilt(8, [1, 2]))
    (part,) = hop.PartReader().feed(answer.content)
    assert isinstance(part, Refused)
    assert "check_embedding_ctx_length=False" in part.error.message


async def test_while_draining_frames_under_way_are_answered_and_new_ones_turned_away() -> None:
    backend = Gated()
    async with served(backend) as embedd, gateway(embedd) as sender:
        await (await sender.send([call(1, "a")])).part()
        frame = await sender.send([call(2, "slow")])
        await until(lambda: backend.waiting)
        embedd.app.drain.begin()
        assert await (await sender.send([call(3, "a")])).status() == 503
        assert not embedd.app.drain.finished
        backend.gate.set()
        assert isinstance(await frame.part(), Answered)
        assert await frame.part() is None
        await until(lambda: embedd.app.drain.finished)


# --- leaving through the front door -------------------------------------------------------------


async def test_clients_that_hang_up_leave_no_waiter_no_place_and_no_task() -> None:
    backend = Gated()
    async with served(backend) as embedd:
        tasks = len(asyncio.all_tasks())
        for number in range(300):
            texts = ["slow", f"slow {number % 7}", f"slow only {number}"]
            await hang_up(embedd.port, {"model": "fake", "input": texts}, turns=number % 5)
        await until(lambda: embedd.idle)
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
        backend.gate.set()
        async with httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as client:
            answer = await client.post(
                f"{embedd.url}/v1/embeddings", json={"model": "fake", "input": ["slow", "slow 1"]}
            )
            figures = (await client.get(f"{embedd.url}/metrics")).text
    assert answer.status_code == 200
    assert "embedd_waiting_texts 0.0" in figures


async def hang_up(port: int, body: dict[str, Any], *, turns: int) -> None:
    """Send a request and close the connection, sooner or later."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    data = json.dumps(body).encode()
    head = (
        f"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    )
    writer.write(head.encode() + data)
    await writer.drain()
    await asyncio.sleep(0.001 * turns)
    writer.transport.abort()
