"""Laws of leases, rates, breakers, ledgers and the cache, on clocks that the tests turn."""

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatd.backends import Completion
from chatd.engine.breaker import Breaker
from chatd.engine.budget import Ledger
from chatd.engine.cache import Cache, Kept
from chatd.engine.candidates import Target, ranked
from chatd.engine.config import Breaking, BudgetsSpec, CacheSpec
from chatd.engine.limits import BURST_S, Bounds, Line, Rate, lease, try_lease
from services.errors import Overloaded

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@settings(max_examples=60, deadline=None)
@given(
    per_minute=st.integers(1, 6000),
    gaps=st.lists(st.floats(0, 5), min_size=1, max_size=60),
)
def test_a_rate_lets_in_its_burst_and_then_so_many_a_minute(per_minute: int, gaps: list[float]) -> None:
    clock = Clock()
    rate = Rate(per_minute, clock)
    let_in = 0
    for gap in gaps:
        clock.now += gap
        while rate.wait_s(1) == 0:
            rate.take(1)
            let_in += 1
    most = (sum(gaps) + max(BURST_S, 60 / per_minute)) * per_minute / 60
    assert let_in <= most + 1e-6
    assert let_in >= 1


def test_a_rate_says_how_long_to_wait() -> None:
    clock = Clock()
    rate = Rate(60, clock)
    rate.take(10)
    assert rate.wait_s(1) == pytest.approx(1.0)
    clock.now += 1.0
    assert rate.wait_s(1) == 0
    rate.give_back(5)
    assert rate.wait_s(6) == 0
    assert Rate(60, clock).wait_s(10_000) == 0  # more than the burst passes when nothing is owed


async def test_first_come_first_in_and_whoever_leaves_holds_nobody_up() -> None:
    line = Line("one", Bounds(1, 3))
    held = await lease([line], 0)
    order: list[str] = []

    async def waits(name: str) -> None:
        mine = await lease([line], 0)
        order.append(name)
        await asyncio.sleep(0)
        mine.release()

    tasks = [asyncio.ensure_future(waits(name)) for name in "abc"]
    await asyncio.sleep(0)
    assert line.waiting == 3
    with pytest.raises(Overloaded, match="at most 3 may"):
        await lease([line], 0)
    tasks[0].cancel()
    held.release()
    held.release()  # a second time changes nothing
    await asyncio.wait(tasks)
    assert order == ["b", "c"]
    assert (line.in_flight, line.waiting) == (0, 0)


async def test_a_place_that_comes_as_its_owner_goes_is_given_back() -> None:
    line = Line("one", Bounds(1, 3))
    held = await lease([line], 0)
    task = asyncio.ensure_future(lease([line], 0))
    await asyncio.sleep(0)
    held.release()  # handed over now, before the task runs again
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (line.in_flight, line.waiting) == (0, 0)


async def test_leases_never_leak_and_never_exceed() -> None:
    draw = random.Random(7)
    narrow, wide = Line("model", Bounds(2, 50)), Line("provider", Bounds(3, 50))
    most: Counter[str] = Counter()

    async def caller(lines: list[Line]) -> None:
        held = try_lease(lines, 1) or await lease(lines, 1)
        try:
            for line in lines:
                most[line.name] = max(most[line.name], line.in_flight)
            for _ in range(draw.randrange(4)):
                await asyncio.sleep(0)
        finally:
            held.release()

    tasks = []
    for _ in range(2000):
        lines = [narrow, wide] if draw.random() < 0.5 else [wide]
        tasks.append(asyncio.ensure_future(caller(lines)))
        if draw.random() < 0.3:
            draw.choice(tasks).cancel()
        if draw.random() < 0.4:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [(line.in_flight, line.waiting) for line in (narrow, wide)] == [(0, 0), (0, 0)]
    assert most == {"model": 2, "provider": 3}


async def test_a_line_waits_for_its_rate() -> None:
    line = Line("one", Bounds(None, 5, rpm=6000))
    for _ in range(1000):
        line.enter(0)
    async with asyncio.timeout(30):
        held = await lease([line], 0)  # the burst is used up; the next place comes after 10 ms
    held.release()


def test_a_breaker_probes_with_one_call_and_waits_longer_each_time() -> None:
    clock = Clock()
    breaker = Breaker(Breaking(failures_max=2, open_s=10, open_max_s=25), clock)
    for _ in range(2):
        trial = breaker.enter()
        assert trial is not None
        trial.failed()
        trial.failed()  # counts once
    assert (breaker.state, breaker.enter()) == ("open", None)
    waits = []
    for _ in range(3):
        waits.append(breaker.wait_s)
        clock.now += breaker.wait_s
        probe = breaker.enter()
        assert probe is not None
        assert breaker.enter() is None  # one probe at a time
        probe.failed()
    assert waits == pytest.approx([10, 20, 25])
    clock.now += breaker.wait_s
    left = breaker.enter()
    assert left is not None
    left.close()  # its caller went: another may probe
    last = breaker.enter()
    assert last is not None
    last.succeeded()
    assert breaker.state == "closed"


RULES = BudgetsSpec(usd_a_day=1.0, keys={"ada": 2.0})


def test_money_is_put_aside_and_settled(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, now=Clock(1_800_000_000.0))
    first = ledger.reserve("bob", 0.75)
    assert ledger.refusal("bob", 0.5, RULES) is not None
    assert ledger.refusal("ada", 0.5, RULES) is None
    first.settle(0.25)
    first.settle(0.25)  # counts once
    assert ledger.left("bob", RULES) == pytest.approx(0.75)
    ledger.reserve("bob", 0.5).settle(None)  # unknown: all of it counts
    assert ledger.left("bob", RULES) == pytest.approx(0.25)
    assert ledger.reserved == 0
    assert ledger.left("bob", BudgetsSpec()) is None


def test_unknown_costs_may_be_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.refusal("bob", None, RULES) is None
    refusal = ledger.refusal("bob", None, BudgetsSpec(usd_a_day=1.0, unknown_cost="refuse"))
    assert refusal is not None
    assert refusal.code == "budget_exceeded"


async def test_replicas_and_restarts_know_what_was_spent_and_a_new_day_forgets(tmp_path: Path) -> None:
    clock = Clock(1_800_000_000.0)
    one, other = Ledger(tmp_path, now=clock), Ledger(tmp_path, now=clock)
    one.reserve("bob", 0.5).settle(0.5)
    other.reserve("bob", 0.25).settle(0.25)
    for ledger in (one, other, one):
        await ledger.share()
    assert one.left("bob", RULES) == other.left("bob", RULES) == pytest.approx(0.25)
    restarted = Ledger(tmp_path, now=clock)
    restarted.read()
    assert restarted.left("bob", RULES) == pytest.approx(0.25)
    late = one.reserve("bob", 0.25)
    clock.now += 86_400
    assert one.left("bob", RULES) == pytest.approx(1.0)
    late.settle(0.2)  # a call over midnight is paid on the day it ends
    assert one.left("bob", RULES) == pytest.approx(0.8)
    assert one.reserved == 0
    clock.now += 2 * 86_400
    await one.share()
    assert days(tmp_path) == []  # nobody needs what is older


async def test_a_clock_that_is_set_ahead_and_back_leaves_the_day_as_it_was(tmp_path: Path) -> None:
    clock = Clock(1_800_000_000.0)
    ledger = Ledger(tmp_path, now=clock)
    ledger.reserve("bob", 0.5).settle(0.5)
    clock.now += 86_400
    ledger.reserve("bob", 0.9).settle(0.9)
    assert ledger.left("bob", RULES) == pytest.approx(0.1)
    clock.now -= 86_400
    assert ledger.left("bob", RULES) == pytest.approx(0.5), "neither forgotten, nor shut until that other day"
    refused = ledger.refusal("bob", 0.6, RULES)
    assert refused is not None
    assert refused.retry_after_s is not None
    assert refused.retry_after_s <= 86_400


def days(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def test_a_cache_keeps_within_its_bounds() -> None:
    clock = Clock()
    rules = CacheSpec(enabled=True, ttl_s=60, entries_max=3, bytes_max=10_000)
    cache = Cache(clock)

    def put(key: str, size: int = 1) -> None:
        cache.put(key.encode(), Kept(Completion("x" * size, "stop"), key), rules)

    for key in "abc":
        put(key)
    assert cache.get(b"a") is not None  # used: the next to go is b
    put("d")
    assert [cache.get(key.encode()) is not None for key in "abcd"] == [True, False, True, True]
    put("large", 20_000)
    assert cache.get(b"large") is None
    put("e", 9_000)
    assert len(cache) == 1
    assert cache.size <= rules.bytes_max
    clock.now += 60
    assert cache.get(b"e") is None
    assert cache.size == 0


def test_a_cache_weighs_all_that_it_keeps() -> None:
    rules = CacheSpec(enabled=True, ttl_s=60, entries_max=3, bytes_max=10_000)
    cache = Cache()
    tokens: Any = [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []} for _ in range(100)]
    cache.put(b"a", Kept(Completion("a" * 100, "stop", logprobs={"content": tokens}), "a"), rules)
    assert len(cache) == 0


def test_weights_share_out_the_first_place() -> None:
    targets: list[Any] = [Target(None, None, name, weight) for name, weight in (("a", 3.0), ("b", 1.0))]  # type: ignore[arg-type]  # neither is looked at
    draw = random.Random(3)
    first = Counter(
        ranked(targets, "weighted", lambda _: None, stream=False, draw=draw.random)[0].model  # type: ignore[arg-type,return-value]  # nor is this
        for _ in range(4000)
    )
    assert first["a"] / 4000 == pytest.approx(0.75, abs=0.04)
