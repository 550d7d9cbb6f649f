"""Limits that several gateways keep together: never more than allowed, and never stuck."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.backends import FakeRates
from gateway.backends.rates import Taken
from gateway.engine import Limiter
from gateway.engine.shared import Charged, Leased
from services.errors import Overloaded
from services.tasks import TaskSet

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def admitted(limiter: Limiter) -> bool:
    try:
        await limiter.admit_asking()
    except Overloaded:
        return False
    return True


@settings(max_examples=50, deadline=None)
@given(per_minute=st.integers(1, 300), turns=st.lists(st.integers(0, 2), max_size=400))
def test_all_together_let_through_what_is_allowed_and_no_more(per_minute: int, turns: list[int]) -> None:
    async def story() -> None:
        rates, clock = FakeRates(), Clock()
        gateways = [Limiter(requests=Leased("k", per_minute, rates, clock), tokens=None) for _ in range(3)]
        passed = [await admitted(gateways[turn]) for turn in turns]
        assert sum(passed) <= per_minute
        if len(turns) >= per_minute:  # what one has taken ahead, another cannot have
            assert sum(passed) >= per_minute - 2 * max(1, per_minute // 60)
        else:
            assert sum(passed) >= len(turns) - 2 * max(1, per_minute // 60)

    asyncio.run(story())


async def test_with_the_store_down_each_goes_by_its_own_count() -> None:
    rates, clock = FakeRates(down=True), Clock()
    limiter = Limiter(requests=Leased("k", 5, rates, clock), tokens=None)
    assert [await admitted(limiter) for _ in range(7)] == [True] * 5 + [False] * 2
    rates.down = False
    clock.now += 2.0
    assert await admitted(limiter), "the common count has room, and is asked again"


async def test_what_was_taken_ahead_is_given_up_after_a_while() -> None:
    rates, clock = FakeRates(), Clock()
    rate = Leased("k", 600, rates, clock)
    limiter = Limiter(requests=rate, tokens=None)
    assert await admitted(limiter)
    assert rate.wait_s(1) == 0
    clock.now += 11.0
    assert rate.wait_s(1) > 0, "it has to ask again"
    assert await admitted(limiter)


class Slow(FakeRates):
    """Answers only once it is let, and counts how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.may_answer = asyncio.Semaphore(0)

    async def take(self, name: str, amount: int, per_minute: int, *, whole: bool) -> Taken:
        self.asked += 1
        await self.may_answer.acquire()
        return await super().take(name, amount, per_minute, whole=whole)


async def test_many_who_wait_for_a_slow_store_wait_together() -> None:
    rates, clock = Slow(), Clock()
    limiter = Limiter(requests=Leased("k", 60, rates, clock), tokens=None)  # a lease is one request
    waiting = [asyncio.create_task(admitted(limiter)) for _ in range(50)]
    await asyncio.sleep(0)
    for _ in range(2):
        rates.may_answer.release()
    assert all(await asyncio.wait_for(asyncio.gather(*waiting), 30))
    assert rates.asked <= 2


async def test_a_rate_that_is_used_up_is_not_asked_for_until_it_can_have_something() -> None:
    rates, clock = Slow(), Clock()
    rates.may_answer = asyncio.Semaphore(1000)
    limiter = Limiter(requests=Leased("k", 60, rates, clock), tokens=None)
    passed = [await admitted(limiter) for _ in range(60)]
    asked = rates.asked
    assert all(passed)
    assert not any([await admitted(limiter) for _ in range(100)])
    assert rates.asked == asked
    clock.now += 1.0
    rates.used_s["k"] -= 1.0
    assert await admitted(limiter)


async def test_tokens_of_all_count_for_each() -> None:
    rates, clock, tasks = FakeRates(), Clock(), TaskSet()
    ones, others = (Charged("k", 100, rates, tasks, clock) for _ in range(2))
    ones.take(99)
    await asyncio.sleep(0.01)
    assert others.wait_s(1) == 0, "it has not heard of them yet"
    others.take(10)
    await asyncio.sleep(0.01)
    assert others.wait_s(1) > 0
    rates.down = True
    ones.take(50)
    await asyncio.sleep(0.01)
    assert ones.wait_s(1) > 0, "its own are known without anybody's help"
    rates.down = False
    ones.take(1)
    await asyncio.sleep(0.01)
    assert rates.used_s["k"] == pytest.approx((99 + 10 + 51) * 0.6)
    await tasks.close()
