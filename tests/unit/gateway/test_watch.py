"""A replica that takes requests and answers none is found, passed over, and asked again when it is back."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from gateway.backends import Bulkhead, FakeUpstream, HttpUpstream, NotReached, Outgoing, reply
from gateway.engine import Fleet, Watch
from services.errors import Unavailable
from services.h1 import H1Client

pytestmark = pytest.mark.anyio

ASKED = Outgoing("GET", b"/", (), b"", repeatable=True)


GONE = NotReached("gone", code="chatd_down", maybe_done=False)
PATIENCE_S = 30.0


@dataclass(eq=False, slots=True)
class Peer(FakeUpstream):
    """Answers its health by `mood`; knows how often it was given up."""

    mood: str = "well"
    asked: int = 0
    answered: int = 0
    lost: int = 0

    async def ping(self) -> None:
        self.asked += 1
        if self.mood == "silent":
            await asyncio.sleep(3600)
        for _ in range(3 if self.mood == "slow" else 0):
            await asyncio.sleep(0.02)
        if self.mood == "down":
            raise Unavailable("refused")
        self.answered += 1

    def lose(self) -> None:
        self.lost += 1


@asynccontextmanager
async def watching(fleet: Fleet, *, timeout_s: float = 0.05) -> AsyncIterator[Watch]:
    watch = Watch([fleet], timeout_s=timeout_s)
    try:
        yield watch
    finally:
        await watch.close()
        await fleet.close()


async def look_until(watch: Watch, holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await watch.look()
            await asyncio.sleep(0.005)


async def test_a_silent_replica_is_passed_over_until_it_speaks() -> None:
    silent, well = Peer(mood="silent"), Peer()
    fleet = Fleet("chatd", [silent, well], ejection_s=0)
    async with watching(fleet) as watch:
        await look_until(watch, lambda: silent.lost == 1)
        assert well.lost == 0
        well.script += [reply(200, b"") for _ in range(20)]
        for _ in range(20):
            async with fleet.exchange(ASKED) as answered:
                assert answered.status == 200
        assert silent.received == []
        silent.mood = "well"
        await look_until(watch, lambda: not any(replica.silent for replica in fleet.replicas))


async def test_a_silent_replica_does_not_delay_the_looks_at_others() -> None:
    silent, well = Peer(mood="silent"), Peer()
    async with watching(Fleet("chatd", [silent, well], ejection_s=0), timeout_s=3600) as watch:
        await look_until(watch, lambda: well.asked == 3)
        assert silent.asked == 1, "the first look still waits"


async def test_what_slips_through_to_a_silent_replica_is_given_up_too() -> None:
    silent = Peer(mood="silent")
    async with watching(Fleet("chatd", [silent], ejection_s=0)) as watch:
        await look_until(watch, lambda: silent.lost == 2)


async def test_time_in_which_we_were_held_up_says_nothing_of_the_replica() -> None:
    slow = Peer(mood="slow")
    async with watching(Fleet("chatd", [slow], ejection_s=0), timeout_s=0.1) as watch:
        await look_until(watch, lambda: slow.asked == 1)
        time.sleep(1.0)  # noqa: ASYNC251 - that is the point
        await look_until(watch, lambda: slow.answered == 1)
        assert slow.lost == 0


async def test_with_every_replica_silent_the_answer_is_at_once() -> None:
    fleet = Fleet("chatd", [Peer(mood="silent")], ejection_s=0)
    async with watching(fleet) as watch:
        await look_until(watch, lambda: fleet.replicas[0].silent)
        with pytest.raises(Unavailable, match="sign of life") as failure:
            async with fleet.exchange(ASKED):
                pass
    assert failure.value.code == "chatd_down"


async def test_who_waits_for_a_restart_is_told_when_the_replica_turns_out_silent() -> None:
    """As behind a wire that was cut: connections do not come about, and nothing is refused."""
    cut = Peer(mood="silent", script=[GONE, GONE, GONE])
    fleet = Fleet("chatd", [cut], ejection_s=0, wait_s=3600, held_max=10)

    async def ask() -> None:
        async with fleet.exchange(ASKED):
            pass

    async with watching(fleet) as watch:
        waiting = asyncio.ensure_future(ask())
        await look_until(watch, waiting.done)
        assert waiting.exception() is GONE
        with pytest.raises(Unavailable):  # nor does anybody begin to wait
            await asyncio.wait_for(ask(), PATIENCE_S)


async def test_a_dead_replica_is_left_to_those_who_ask_it() -> None:
    down = Peer(mood="down", script=[reply(200, b"")])
    fleet = Fleet("chatd", [down], ejection_s=0)
    async with watching(fleet) as watch:
        await look_until(watch, lambda: down.asked == 2)
        async with fleet.exchange(ASKED) as answered:
            assert answered.status == 200
    assert down.lost == 0


@pytest.mark.enable_socket
async def test_a_lost_replica_gives_up_what_waits_for_a_place_as_well() -> None:
    arrived = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await reader.read()  # until it is cut off
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        bulkhead = Bulkhead("chatd", concurrency_max=1, waiting_max=1)
        upstream = HttpUpstream("chatd", H1Client(url, connect_timeout_s=30), bulkhead, read_timeout_s=3600)
        asking = asyncio.gather(upstream.open(ASKED), upstream.open(ASKED), return_exceptions=True)
        await asyncio.wait_for(arrived.wait(), PATIENCE_S)
        upstream.lose()
        under_way, waiting = await asyncio.wait_for(asking, PATIENCE_S)
        await upstream.close()
    assert isinstance(under_way, NotReached)
    assert under_way.maybe_done
    assert isinstance(waiting, NotReached)
    assert not waiting.maybe_done, "it was never sent"
