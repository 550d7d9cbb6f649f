"""A replica that takes requests and answers none is found, passed over, and asked again when it is back."""

import asyncio
from dataclasses import dataclass, field

import pytest

from gateway.backends import FakeUpstream, Outgoing, reply
from gateway.engine import Fleet, Watch
from services.errors import Unavailable

pytestmark = pytest.mark.anyio

ASKED = Outgoing("GET", b"/", (), b"", repeatable=True)


@dataclass(eq=False, slots=True)
class Peer(FakeUpstream):
    """Answers its health by `mood`; knows how often it was given up."""

    mood: str = "well"
    lost: list[bool] = field(default_factory=list)

    async def ping(self) -> None:
        if self.mood == "silent":
            await asyncio.sleep(3600)
        if self.mood == "down":
            raise Unavailable("refused")

    def lose(self) -> None:
        self.lost.append(True)


async def test_a_silent_replica_is_passed_over_until_it_speaks() -> None:
    silent, well = Peer(mood="silent"), Peer()
    fleet = Fleet("chatd", [silent, well], ejection_s=0)
    watch = Watch(lambda: fleet.replicas, timeout_s=0.05)
    await watch.look()
    assert silent.lost == [True]
    assert well.lost == []
    well.script += [reply(200, b"") for _ in range(20)]
    for _ in range(20):
        async with fleet.exchange(ASKED) as answered:
            assert answered.status == 200
    assert silent.received == []
    await watch.look()
    assert silent.lost == [True], "what is under way is given up once"
    silent.mood = "well"
    await watch.look()
    assert [replica.silent for replica in fleet.replicas] == [False, False]


async def test_with_every_replica_silent_the_answer_is_at_once() -> None:
    fleet = Fleet("chatd", [Peer(mood="silent")], ejection_s=0)
    await Watch(lambda: fleet.replicas, timeout_s=0.05).look()
    with pytest.raises(Unavailable, match="sign of life") as failure:
        async with fleet.exchange(ASKED):
            pass
    assert failure.value.code == "chatd_down"


async def test_a_dead_replica_is_left_to_those_who_ask_it() -> None:
    down = Peer(mood="down", script=[reply(200, b"")])
    fleet = Fleet("chatd", [down], ejection_s=0)
    await Watch(lambda: fleet.replicas, timeout_s=0.05).look()
    async with fleet.exchange(ASKED) as answered:
        assert answered.status == 200
    assert down.lost == []
