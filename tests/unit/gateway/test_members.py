"""Names that stand for replicas are followed as their addresses come and go."""

import pytest

from gateway.backends import HttpHop
from gateway.backends.resolve import is_name, resolved
from gateway.engine import Members, Rendezvous
from services.h1 import H1Client

pytestmark = pytest.mark.anyio


def connect(url: str) -> HttpHop:
    client = H1Client(url, connect_timeout_s=1)
    return HttpHop(client, answer_timeout_s=1, part_timeout_s=1, waiting_max=10)


async def test_replicas_follow_the_addresses_of_a_name() -> None:
    addresses = {"http://embedd:3101": ["http://10.0.0.1:3101", "http://10.0.0.2:3101"]}

    async def resolve(url: str) -> list[str]:
        return addresses.get(url, [url])

    rendezvous = Rendezvous((), ejection_s=1)
    members = Members(
        ["http://embedd:3101", "http://127.0.0.1:9"], rendezvous, resolve=resolve, connect=connect
    )

    def urls() -> list[str]:
        return [replica.url for replica in rendezvous.replicas]

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
    members = Members(["http://embedd:3101"], rendezvous, resolve=resolve, connect=connect)
    await members.refresh()
    await members.refresh()
    assert [replica.url for replica in rendezvous.replicas] == ["http://10.0.0.1:3101"]
    await members.close()


async def test_addresses_stand_for_themselves() -> None:
    for url in ("http://127.0.0.1:3101", "http://[::1]:3101", "http://localhost:3101"):
        assert not is_name(url)
        assert await resolved(url) == [url]
    assert is_name("http://embedd:3101")
