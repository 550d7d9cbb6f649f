"""Names that stand for replicas are followed as their addresses come and go."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway.backends import HttpHop
from gateway.backends.resolve import is_name, resolved
from gateway.engine import Members, Rendezvous
from services.h1 import H1Client

pytestmark = pytest.mark.anyio


def connect(url: str) -> HttpHop:
    client = H1Client(url, connect_timeout_s=1)
    return HttpHop(client, answer_timeout_s=1, part_timeout_s=1, waiting_max=10)


def members_of(
    rendezvous: Rendezvous, urls: list[str], resolve: Callable[[str], Awaitable[list[str]]]
) -> Members[HttpHop]:
    return Members("embedd", urls, resolve=resolve, connect=connect, use=rendezvous.set_replicas, drain_s=1)


async def test_replicas_follow_the_addresses_of_a_name() -> None:
    addresses = {"http://embedd:3101": ["http://10.0.0.1:3101", "http://10.0.0.2:3101"]}

    async def resolve(url: str) -> list[str]:
        return addresses.get(url, [url])

    rendezvous = Rendezvous((), ejection_s=1)
    members = members_of(rendezvous, ["http://embedd:3101", "http://127.0.0.1:9"], resolve)

    def urls() -> list[str]:
        return [member.replica.url for member in rendezvous.replicas]

    await members.refresh()
    assert urls() == ["http://10.0.0.1:3101", "http://10.0.0.2:3101", "http://127.0.0.1:9"]
    first = rendezvous.replicas[0]

    addresses["http://embedd:3101"] = ["http://10.0.0.1:3101", "http://10.0.0.3:3101"]
    await members.refresh()
    assert urls() == ["http://10.0.0.1:3101", "http://10.0.0.3:3101", "http://127.0.0.1:9"]
    assert rendezvous.replicas[0] is first, "who stays keeps its connections"
    await members.close()


async def test_a_name_server_that_is_silent_takes_no_replica_away() -> None:
    answers: list[list[str]] = [["http://10.0.0.1:3101"], []]

    async def resolve(_: str) -> list[str]:
        return answers.pop(0)

    rendezvous = Rendezvous((), ejection_s=1)
    members = members_of(rendezvous, ["http://embedd:3101"], resolve)
    await members.refresh()
    await members.refresh()
    assert [member.replica.url for member in rendezvous.replicas] == ["http://10.0.0.1:3101"]
    await members.close()


class Replica:
    """A connection that is closed, or not."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.in_flight = 0
        self.closed = asyncio.Event()

    async def close(self) -> None:
        self.closed.set()


async def test_one_that_leaves_is_asked_nothing_more_and_ends_what_it_has() -> None:
    found = ["http://10.0.0.1:1", "http://10.0.0.2:1"]
    used: list[Replica] = []

    async def resolve(_: str) -> list[str]:
        return list(found)

    def use(replicas: list[Replica]) -> None:
        used[:] = replicas

    members = Members("chatd", ["http://chatd:1"], resolve=resolve, connect=Replica, use=use, drain_s=60)
    await members.refresh()
    first, second = used
    second.in_flight = 1
    found.pop()
    await members.refresh()
    assert used == [first]
    await asyncio.sleep(0)
    assert not second.closed.is_set()
    second.in_flight = 0
    await asyncio.wait_for(second.closed.wait(), 30)
    assert not first.closed.is_set()
    await members.close()
    assert first.closed.is_set()


async def test_addresses_stand_for_themselves() -> None:
    for url in ("http://127.0.0.1:3101", "http://[::1]:3101", "http://localhost:3101"):
        assert not is_name(url)
        assert await resolved(url) == [url]
    assert is_name("http://embedd:3101")
