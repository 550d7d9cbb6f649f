"""Engines as the composition root builds them, with the parts that a test chooses."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import numpy as np
from prometheus_client import CollectorRegistry

from embedd.backends import Backend, OllamaBackend, SharedCache, Transport, Vectors
from embedd.engine import PROBES, Embedded, Engine, FragmentCache, Limits, Metrics, Pool, VectorCache
from services.h1 import H1Client
from tests.stubs.ollama import OllamaStub

LIMITS = Limits(
    batch_items_max=4,
    batch_tokens_max=10_000,
    concurrency_max=1,
    waiting_max=1000,
    tries_max=3,
    busy_pause_s=0.01,
    probe_interval_s=0.01,
    look_timeout_s=5.0,
    digest_ttl_s=60.0,
)


@dataclass(frozen=True)
class Built:
    engine: Engine
    pool: Pool
    cache: VectorCache
    registry: CollectorRegistry

    async def embed(self, *texts: str, model: str = "fake") -> Embedded:
        return await self.engine.embed(self.engine.order(model, list(texts), None, truncate=False))

    def figure(self, name: str) -> float:
        value = self.registry.get_sample_value(f"embedd_{name}")
        assert value is not None, name
        return value

    @property
    def idle(self) -> bool:
        """Nothing waits, nothing is out, nobody is waited for."""
        lanes = self.pool.lanes._lanes
        return not (
            self.engine._flights
            or self.pool._queues
            or self.pool._waiting
            or any(lane.in_flight for lane in lanes)
        )


@asynccontextmanager
async def engine_on(
    *backends: Backend,
    cache_bytes_max: int = 1 << 20,
    ttl_s: float = 0.0,
    clock: Callable[[], float] | None = None,
    shared: SharedCache | None = None,
    limits: Mapping[str, float] | None = None,
) -> AsyncIterator[Built]:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    pool = Pool(backends, metrics, replace(LIMITS, **(limits or {})))  # type: ignore[arg-type]  # whole ones are whole
    timed = {"clock": clock} if clock is not None else {}
    cache = VectorCache(
        bytes_max=cache_bytes_max, policy="lru", ttl_s=ttl_s, on_evict=metrics.evictions.inc, **timed
    )
    engine = Engine(pool, cache, FragmentCache(bytes_max=1 << 20), metrics, shared=shared)
    try:
        yield Built(engine, pool, cache, registry)
    finally:
        await engine.close()


@asynccontextmanager
async def engine_on_stubs(
    *stubs: OllamaStub, timeout_s: float = 30.0, **limits: float
) -> AsyncIterator[Built]:
    """An engine that speaks to stubs on their sockets."""
    clients = [H1Client(stub.url, connect_timeout_s=5.0) for stub in stubs]
    backends = [
        OllamaBackend(Transport(client, peer="ollama", timeout_s=timeout_s), keep_alive="5m", options={})
        for client in clients
    ]
    try:
        async with engine_on(*backends, limits=limits) as built:
            yield built
    finally:
        for client in clients:
            client.close()


def vectors(embedded: Embedded) -> Vectors:
    return np.stack([np.frombuffer(entry.vector, "<f4") for entry in embedded.entries])


def asked(calls: Sequence[Sequence[str]]) -> list[list[str]]:
    """The calls of a backend without those by which embedd looks whether it can be believed."""
    return [list(texts) for texts in calls if not set(texts) <= set(PROBES)]
