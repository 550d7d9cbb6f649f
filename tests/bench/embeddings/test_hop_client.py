"""What one small call costs each HTTP client, in wall time and in processor time of the caller."""

import asyncio
import importlib
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvloop

from services.h1 import H1Client
from tests.processes import running

pytestmark = [pytest.mark.bench, pytest.mark.enable_socket]

CALLS = 2000
ROUNDS = 3
BODY = b'{"model":"nomic-embed-text","input":["a text"]}'
HEADERS = {"content-type": "application/json"}
PATH = "/stub/nothing"
OWN_SHARE_MAX = 0.25
"""Of httpx' processor time a call: what a client of our own has to be worth."""

Post = Callable[[], Awaitable[None]]
Client = Callable[[str], AbstractAsyncContextManager[Post]]


@dataclass(frozen=True)
class Cost:
    """Microseconds a call."""

    wall_us: float
    cpu_us: float

    def __str__(self) -> str:
        return f"{self.wall_us:.0f} µs ({self.cpu_us:.0f} µs of processor)"


@asynccontextmanager
async def by_httpx(url: str) -> AsyncIterator[Post]:
    async with httpx.AsyncClient(base_url=url, timeout=10.0, trust_env=False) as client:

        async def post() -> None:
            answer = await client.post(PATH, content=BODY, headers=HEADERS)
            assert answer.status_code == 200
            assert answer.content

        yield post


@asynccontextmanager
async def by_aiohttp(url: str) -> AsyncIterator[Post]:
    aiohttp = importlib.import_module("aiohttp")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10.0)) as client:

        async def post() -> None:
            async with client.post(f"{url}{PATH}", data=BODY, headers=HEADERS) as answer:
                assert answer.status == 200
                assert await answer.read()

        yield post


@asynccontextmanager
async def by_h1(url: str) -> AsyncIterator[Post]:
    headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
    async with H1Client(url, connect_timeout_s=10.0) as client:

        async def post() -> None:
            async with asyncio.timeout(10.0):
                exchange = await client.send(b"POST", PATH.encode(), headers, BODY)
                assert await exchange.head() == 200
                assert await exchange.body(bytes_max=1024)

        yield post


async def cost(client: Client, url: str, at_once: int) -> Cost:
    async with client(url) as post:

        async def several(count: int) -> None:
            for _ in range(count):
                await post()

        await asyncio.gather(*(several(10) for _ in range(at_once)))
        wall, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(several(CALLS // at_once) for _ in range(at_once)))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Cost(wall / CALLS * 1e6, cpu / CALLS * 1e6)


def median(costs: list[Cost]) -> Cost:
    return Cost(
        statistics.median(each.wall_us for each in costs), statistics.median(each.cpu_us for each in costs)
    )


@pytest.mark.parametrize("at_once", [1, 8])
def test_own_client(tmp_path: Path, at_once: int) -> None:
    clients: dict[str, Client] = {"httpx": by_httpx, "services.h1": by_h1}
    if importlib.util.find_spec("aiohttp") is not None:
        clients["aiohttp"] = by_aiohttp
    with running("tests.bench.ollama_stub", tmp_path) as server:
        rounds = [
            {name: uvloop.run(cost(client, server.url, at_once)) for name, client in clients.items()}
            for _ in range(ROUNDS)
        ]
    costs = {name: median([each[name] for each in rounds]) for name in clients}
    absent = "" if "aiohttp" in clients else "; aiohttp is not installed"
    print(f"\none call, {at_once} at a time:", "; ".join(f"{n} {c}" for n, c in costs.items()), absent)
    assert costs["services.h1"].cpu_us <= OWN_SHARE_MAX * costs["httpx"].cpu_us
