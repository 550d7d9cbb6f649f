"""Models come into memory when asked for and leave when their time has come, by a clock of the test's own."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest

from modeld.backends import Embedder, FakeEmbedder, Offer, WeightsRefused, fake_shelf
from modeld.engine import Resident
from services.tasks import TaskSet, task_set

pytestmark = pytest.mark.anyio


def in_memory(resident: Resident[Embedder]) -> bool:
    return resident.loaded


class Bench:
    """A resident whose loads are counted and whose time is set by hand."""

    def __init__(self, tasks: TaskSet, *, keep_alive_s: float = 300.0) -> None:
        self.now = 1000.0
        self.loaded: list[FakeEmbedder] = []
        self.failures = 0
        self.gate = threading.Event()
        self.gate.set()
        card = fake_shelf().embedders[0]
        offer: Offer[Embedder] = Offer(card.card, card.inspect, self._load)
        self.resident = Resident(offer, tasks, keep_alive_s=keep_alive_s, clock=lambda: self.now)

    def _load(self) -> Embedder:
        assert self.gate.wait(10)
        if self.failures:
            self.failures -= 1
            raise WeightsRefused("not the weights we know")
        self.loaded.append(FakeEmbedder())
        return self.loaded[-1]

    async def use(self, keep_alive_s: float | None = None) -> None:
        await self.resident.acquire(keep_alive_s)
        self.resident.release()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.resident.expire()

    async def unloaded(self, which: int) -> None:
        async with asyncio.timeout(10):
            while not self.loaded[which].closed:  # noqa: ASYNC110 - a thread sets it
                await asyncio.sleep(0.001)


async def test_it_stays_for_its_time_and_no_longer() -> None:
    async with task_set() as tasks:
        bench = Bench(tasks)
        await bench.use()
        bench.pass_time(299)
        assert in_memory(bench.resident)
        assert timedelta(0) < bench.resident.expires_at - datetime.now(UTC) <= timedelta(seconds=1)
        await bench.use()
        bench.pass_time(299)
        assert in_memory(bench.resident)
        bench.pass_time(1)
        assert not in_memory(bench.resident)
        await bench.unloaded(0)
        await bench.use()
        assert len(bench.loaded) == 2


async def test_zero_unloads_at_once_and_the_default_returns_with_the_next_call() -> None:
    async with task_set() as tasks:
        bench = Bench(tasks)
        await bench.use(0)
        assert not in_memory(bench.resident)
        await bench.unloaded(0)
        await bench.use()
        assert in_memory(bench.resident)


async def test_for_ever_is_told_as_ollama_tells_it() -> None:
    async with task_set() as tasks:
        bench = Bench(tasks, keep_alive_s=-1)
        await bench.use()
        bench.pass_time(10**9)
        assert in_memory(bench.resident)
        assert bench.resident.expires_at.year > datetime.now(UTC).year + 250


async def test_it_is_never_unloaded_under_a_user() -> None:
    async with task_set() as tasks:
        bench = Bench(tasks)
        await bench.resident.acquire(0)
        bench.pass_time(10**6)
        assert in_memory(bench.resident)
        bench.resident.release()
        assert not in_memory(bench.resident)
        await bench.unloaded(0)


async def test_callers_share_one_load_and_one_who_leaves_does_not_spoil_it() -> None:
    async with task_set() as tasks:
        bench = Bench(tasks)
        bench.gate.clear()
        callers = [asyncio.create_task(bench.resident.acquire(None)) for _ in range(3)]
        await asyncio.sleep(0)
        callers[0].cancel()
        bench.gate.set()
        first, second, third = await asyncio.gather(*callers, return_exceptions=True)
        assert isinstance(first, asyncio.CancelledError)
        assert second is third is bench.loaded[0]
        assert len(bench.loaded) == 1
        for _ in range(2):
            bench.resident.release()
        bench.pass_time(300)
        await bench.unloaded(0)


async def test_a_failed_load_is_told_and_tried_again() -> None:
    async with task_set() as tasks:
        bench = Bench(tasks)
        bench.failures = 1
        with pytest.raises(WeightsRefused):
            await bench.use()
        await bench.use()
        assert in_memory(bench.resident)
