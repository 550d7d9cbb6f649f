"""Callers who hang up on a real chatd, at every moment: no socket, task or place of theirs stays open.

`ABORTS` says how many; the whole bar is 10000.
"""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import orjson
import pytest

from services.testing import free_port
from tests.processes import Running, running

pytestmark = pytest.mark.anyio

ABORTS = int(os.environ.get("ABORTS", "300"))
AT_ONCE = 32
PATIENCE_S = 60.0
LINE = b'{"message":{"role":"assistant","content":"word "},"done":false}\n'


@pytest.fixture(autouse=True)
def _sockets(socket_enabled: None) -> None:
    """These tests talk to real ports."""


class Upstream:
    """An Ollama that is slow to begin and never ends. `open` are the generations that nobody has left yet."""

    def __init__(self) -> None:
        self.open = 0
        self.begun = 0
        self._draw = random.Random(2)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = next(
                    (
                        int(line[15:])
                        for line in head.split(b"\r\n")
                        if line.lower().startswith(b"content-length:")
                    ),
                    0,
                )
                body = await reader.readexactly(size)
                if head.startswith(b"GET"):
                    writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{"models":[]}')
                else:
                    await self._generate(orjson.loads(body), reader, writer)
                    break
        writer.close()

    async def _generate(
        self, asked: dict[str, object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.open += 1
        self.begun += 1
        try:
            await asyncio.sleep(self._draw.random() * 0.02)
            if asked["stream"] and self._draw.random() < 0.7:
                writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                for _ in range(3):
                    writer.write(b"%x\r\n%b\r\n" % (len(LINE), LINE))
            await reader.read(1)  # until the caller hangs up
        finally:
            self.open -= 1


@contextlib.asynccontextmanager
async def house(folder: Path) -> AsyncIterator[tuple[Upstream, Running]]:
    upstream = Upstream()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    env = {
        "OLLAMA_HOST": f"http://127.0.0.1:{port}",
        "CHATD_DISTILL_URL": f"http://127.0.0.1:{free_port()}",  # down: the records stay in the spool
        "CHATD_UPSTREAM_CONCURRENCY_MAX": "8",
    }
    starting = running("chatd", folder, env=env)
    chatd = await asyncio.to_thread(starting.__enter__)
    try:
        yield upstream, chatd
    finally:
        await asyncio.to_thread(starting.__exit__, None, None, None)
        server.close()


async def moment(upstream: Upstream, reader: asyncio.StreamReader, draw: random.Random) -> None:
    """Stay for no time, for some, or until the model is at work and has perhaps said something."""
    begun = upstream.begun
    match draw.randrange(3):
        case 1:
            await asyncio.sleep(draw.random() * 0.05)
        case 2:
            async with asyncio.timeout(PATIENCE_S):
                while upstream.begun == begun:  # noqa: ASYNC110 - a stub tells nobody
                    await asyncio.sleep(0.002)
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(draw.random() * 0.05):
                    await reader.read(65536)


async def hang_up(upstream: Upstream, port: int, draw: random.Random) -> None:
    """Ask, and leave: at once, before or after the first token, with or without a reset."""
    body = orjson.dumps(
        {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": draw.random() < 0.5}
    )
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
    await moment(upstream, reader, draw)
    if draw.random() < 0.3:
        writer.transport.abort()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def metric(text: str, name: str) -> float:
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


async def test_hanging_up_leaves_nothing_open(tmp_path: Path) -> None:
    draw = random.Random(1)
    async with house(tmp_path) as (upstream, chatd), httpx.AsyncClient(trust_env=False) as client:
        port = int(chatd.url.rpartition(":")[2])
        await client.get(f"{chatd.url}/metrics")
        fds = Path(f"/proc/{chatd.process.pid}/fd")
        before = len(os.listdir(fds))  # noqa: PTH208 - entries vanish while pathlib looks at them
        places = asyncio.Semaphore(AT_ONCE)

        async def caller() -> None:
            async with places:
                await hang_up(upstream, port, draw)

        await asyncio.gather(*(caller() for _ in range(ABORTS)))
        async with asyncio.timeout(PATIENCE_S):
            while True:
                told = (await client.get(f"{chatd.url}/metrics")).text
                left = [metric(told, f"chatd_{name}") for name in ("in_flight", "waiting")]
                now = len(os.listdir(fds))  # noqa: PTH208 - as above
                if left == [0, 0] and upstream.open == 0 and now <= before + 4:
                    break
                await asyncio.sleep(0.05)
    records = [
        orjson.loads(line)
        for path in (tmp_path / "data" / "chatd" / "spool").glob("segment-*.jsonl")
        for line in path.read_bytes().splitlines()
    ]
    assert upstream.begun > 0
    assert len({record["run_id"] for record in records}) == len(records) <= ABORTS
    assert len(records) >= upstream.begun
    assert all(record["attempts"][-1]["status"] == "aborted" for record in records if record["attempts"])
    assert all(record["usage"]["completion_tokens"] is not None for record in records)
