"""Places for calls: never more than there are, given on in order, and none lost to those who leave."""

import asyncio
import random

import pytest

from gateway.backends import Bulkhead
from services.errors import Overloaded

pytestmark = pytest.mark.anyio


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_places_are_given_on_in_order() -> None:
    bulkhead = Bulkhead("peer", concurrency_max=1, waiting_max=2)
    assert bulkhead.enter_now()
    entered: list[int] = []

    async def enter(number: int) -> None:
        await bulkhead.enter()
        entered.append(number)

    tasks = [asyncio.ensure_future(enter(number)) for number in range(2)]
    await settle()
    with pytest.raises(Overloaded, match="2 calls wait for peer; at most 2 may"):
        await bulkhead.enter()
    bulkhead.leave()
    assert not bulkhead.enter_now()  # it belongs to who waits
    await settle()
    assert entered == [0]
    bulkhead.leave()
    await asyncio.gather(*tasks)
    assert entered == [0, 1]
    bulkhead.leave()
    assert bulkhead.enter_now()


async def test_who_leaves_while_waiting_takes_no_place_along() -> None:
    bulkhead = Bulkhead("peer", concurrency_max=1, waiting_max=3)
    await bulkhead.enter()
    waiting = [asyncio.ensure_future(bulkhead.enter()) for _ in range(3)]
    await settle()
    waiting[0].cancel()  # still waits
    bulkhead.leave()
    waiting[1].cancel()  # was given the place in this moment
    await asyncio.gather(*waiting[:2], return_exceptions=True)
    await asyncio.wait_for(waiting[2], 5)
    bulkhead.leave()
    assert bulkhead.enter_now()


@pytest.mark.parametrize("seed", range(5))
async def test_no_place_is_lost_or_made(seed: int) -> None:
    dice = random.Random(seed)
    bulkhead = Bulkhead("peer", concurrency_max=3, waiting_max=100)
    inside = most = 0

    async def visit() -> None:
        nonlocal inside, most
        await bulkhead.enter()
        inside += 1
        most = max(most, inside)
        try:
            for _ in range(dice.randrange(4)):
                await asyncio.sleep(0)
        finally:
            inside -= 1
            bulkhead.leave()

    tasks = []
    for _ in range(80):
        tasks.append(asyncio.ensure_future(visit()))
        if dice.random() < 0.4:
            dice.choice(tasks).cancel()
        if dice.random() < 0.5:
            await asyncio.sleep(0)
    await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)
    assert most == 3
    assert [bulkhead.enter_now() for _ in range(4)] == [True, True, True, False]
