"""The hop to a replica of embedd that turns out silent: its calls are given up, and nothing is sent again."""

import asyncio

import pytest

from gateway.backends import HttpHop, Part, ReplicaLost
from schemas.hop import Call
from services.h1 import H1Client

pytestmark = [pytest.mark.anyio, pytest.mark.enable_socket]

PATIENCE_S = 30.0


def call(number: int) -> Call:
    return Call(number, "request", "", "all-minilm", None, False, None, "float", ["a text"])


async def test_a_lost_replica_is_left_by_every_connection_and_asked_no_more() -> None:
    arrived, left = asyncio.Event(), asyncio.Event()
    connections = 0

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        try:
            while await reader.read(1024):
                pass
        except ConnectionError:
            pass
        left.set()
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        client = H1Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", connect_timeout_s=30)
        replica = HttpHop(client, answer_timeout_s=3600, part_timeout_s=3600, waiting_max=10)
        told: list[Part | ReplicaLost] = []
        replica.ask(call, lambda part, _: told.append(part))
        async with asyncio.timeout(PATIENCE_S):
            await arrived.wait()
            replica.lose()
            assert [type(part) for part in told] == [ReplicaLost]
            await left.wait()
        await asyncio.sleep(0.2)
        await replica.close()
    assert connections == 1
