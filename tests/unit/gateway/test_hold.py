"""Requests wait for a daemon that is being restarted: not for long, not too many, and one looks for all."""

import asyncio

import pytest

from gateway.backends import FakeUpstream, NotReached, Outgoing, reply
from gateway.engine import Fleet
from gateway.engine.hold import Hold
from services.errors import Draining, Unavailable
from tests.waiting import until

pytestmark = pytest.mark.anyio

ONCE = Outgoing("POST", b"/", (), b"", repeatable=False)
GONE = NotReached("gone", code="chatd_down", maybe_done=False)


class Restarting:
    """Answers its health from the `th` look on."""

    def __init__(self, th: int) -> None:
        self.looks = 0
        self._th = th

    async def ping(self) -> None:
        self.looks += 1
        if self.looks < self._th:
            raise Unavailable("not yet")


async def test_all_who_wait_go_on_together() -> None:
    daemon = Restarting(3)
    hold = Hold(daemon.ping, wait_s=60, held_max=100)
    assert await asyncio.gather(*(hold.turn().back() for _ in range(20))) == [True] * 20
    assert daemon.looks == 3


async def test_nobody_waits_longer_than_since_it_went_away() -> None:
    hold = Hold(Restarting(10**9).ping, wait_s=0.2, held_max=100)
    assert await asyncio.gather(*(hold.turn().back() for _ in range(2))) == [False, False]
    loop = asyncio.get_running_loop()
    started = loop.time()
    assert not await hold.turn().back()
    assert loop.time() - started < 0.1, "it is known to be down"
    hold.heard()  # and is gone again
    assert not await hold.turn().back()
    assert loop.time() - started >= 0.2
    await hold.close()


async def test_an_outage_that_nobody_asked_through_to_its_end_is_over_all_the_same() -> None:
    daemon = Restarting(6)
    hold = Hold(daemon.ping, wait_s=0.2, held_max=100)
    assert not await hold.turn().back()
    assert hold.down_since is not None
    await until(lambda: hold.down_since is None)
    assert daemon.looks == 6
    await hold.close()


async def test_the_time_begins_when_it_is_gone_and_not_when_it_says_that_it_will_go() -> None:
    moods: list[Exception | None] = [Draining("stopping")] * 3 + [Unavailable("gone")] * 3 + [None]

    async def ping() -> None:
        if (mood := moods.pop(0)) is not None:
            raise mood

    hold = Hold(ping, wait_s=60, held_max=1)
    waiting = asyncio.ensure_future(hold.turn().back())
    while len(moods) > 4:
        assert hold.down_since is None
        await asyncio.sleep(0.01)
    assert await waiting
    assert hold.down_since is not None


async def test_a_restart_that_was_announced_may_take_longer() -> None:
    moods: list[Exception | None] = [Draining("stopping")] + [Unavailable("gone")] * 10 + [None]

    async def ping() -> None:
        if (mood := moods.pop(0)) is not None:
            raise mood

    hold = Hold(ping, wait_s=0.2, restart_s=60, held_max=1)
    assert await hold.turn().back()
    assert not moods
    hold.heard()
    moods = [Unavailable("gone")] * 1000
    assert not await hold.turn().back(), "not a word was said this time"
    await hold.close()


async def test_who_only_hears_that_it_will_stop_does_not_wait_for_ever() -> None:
    async def ping() -> None:
        raise Draining("stopping")

    hold = Hold(ping, wait_s=0.2, held_max=1)
    assert not await hold.turn().back()
    assert hold.down_since is None
    await hold.close()


async def test_a_daemon_that_is_there_and_refuses_is_not_asked_for_ever() -> None:
    async def ping() -> None:
        return

    turn = Hold(ping, wait_s=0.3, held_max=1).turn()
    times = 0
    while await turn.back():
        times += 1
    assert 0 < times <= 6


async def test_a_look_that_takes_long_tells_that_it_was_gone_when_the_look_began() -> None:
    """As behind a wire that was cut, where connecting takes its full time."""

    async def ping() -> None:
        await asyncio.sleep(0.7)
        raise TimeoutError

    hold = Hold(ping, wait_s=1.0, held_max=1)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert not await hold.turn().back()
    assert hold.down_since is not None
    assert hold.down_since - began < 0.7
    await hold.close()


async def test_only_so_many_wait() -> None:
    hold = Hold(Restarting(3).ping, wait_s=60, held_max=2)
    assert sorted(await asyncio.gather(*(hold.turn().back() for _ in range(5)))) == [False] * 3 + [True] * 2


async def test_a_request_that_nobody_saw_is_sent_when_the_daemon_is_back() -> None:
    upstream = FakeUpstream([GONE, GONE, reply(200, b"")])
    fleet = Fleet("chatd", [upstream], ejection_s=1, wait_s=60, held_max=10)
    async with fleet.exchange(ONCE) as answered:
        assert answered.status == 200
    assert len(upstream.received) == 3


async def test_a_request_that_somebody_may_have_seen_is_not_sent_again() -> None:
    broken = NotReached("broke off", code="chatd_down", maybe_done=True)
    fleet = Fleet("chatd", [FakeUpstream([broken])], ejection_s=1, wait_s=60, held_max=10)
    with pytest.raises(NotReached):
        async with fleet.exchange(ONCE):
            pass


class Leaving(FakeUpstream):
    """Says that it will stop until it is told to be back."""

    is_back = False

    async def ping(self) -> None:
        if not self.is_back:
            raise Draining("stopping")


async def test_nothing_is_sent_to_who_said_that_it_will_stop() -> None:
    """It may close under the request, and nobody would know whether it was done."""
    upstream = Leaving([GONE, reply(200, b""), reply(200, b"")])
    fleet = Fleet("chatd", [upstream], ejection_s=1, wait_s=60, held_max=10)

    async def ask() -> None:
        async with fleet.exchange(ONCE) as answered:
            assert answered.status == 200

    first = asyncio.ensure_future(ask())
    await until(lambda: fleet.hold.announced)
    second = asyncio.ensure_future(ask())
    await asyncio.sleep(0.2)
    assert len(upstream.received) == 1
    upstream.is_back = True
    await asyncio.gather(first, second)
    assert not fleet.hold.announced
    await fleet.close()


async def test_who_left_for_long_is_asked_again_once_it_is_back() -> None:
    upstream = Leaving([GONE, reply(200, b"")])
    fleet = Fleet("chatd", [upstream], ejection_s=1, wait_s=0.1, held_max=10)
    with pytest.raises(NotReached):
        async with fleet.exchange(ONCE):
            pass
    with pytest.raises(Unavailable):
        async with fleet.exchange(ONCE):
            pass
    assert len(upstream.received) == 1
    upstream.is_back = True
    await until(lambda: not fleet.hold.announced)
    async with fleet.exchange(ONCE) as answered:
        assert answered.status == 200
    await fleet.close()
