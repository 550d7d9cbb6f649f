"""How long bytes lay before they were read: the kernel tells, and is asked once a turn while all is well."""

import asyncio
import socket
import time
from typing import Any

import pytest

from services.protocol.arrival import TICK_S, Delay

pytestmark = [
    pytest.mark.enable_socket,
    pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="the system does not tell when bytes came"),
]
WAIT_S = 0.2


class Transport(asyncio.BaseTransport):
    """Over a connection of its own, and how often that was asked about."""

    def __init__(self, connection: socket.socket | None) -> None:
        super().__init__()
        self._connection = connection
        self.asked = 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        self.asked += 1
        return self._connection if name == "socket" else default


def test_what_waited_to_be_accepted_is_counted_from_when_it_came() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        started = time.perf_counter()
        client.sendall(b"GET")
        time.sleep(WAIT_S)
        accepted, _ = server.accept()
        with accepted:
            waited_s = Delay().before(Transport(accepted), 1.0)
            assert WAIT_S - 3 * TICK_S <= waited_s <= time.perf_counter() - started + TICK_S
            accepted.recv(3)
            again = time.perf_counter()
            client.sendall(b"GET")
            accepted.recv(3)
            waited_s = Delay().before(Transport(accepted), 2.0)
            assert waited_s <= time.perf_counter() - again + TICK_S, "the second came just now"


def test_one_question_a_turn_is_enough_while_all_is_well() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        accepted, _ = server.accept()
        with accepted:
            delay, fresh = Delay(), Transport(None)
            assert [delay.before(fresh, turn) for turn in (1.0, 1.0, 1.0, 2.0)] == [0.0] * 4
            assert fresh.asked == 2
            client.sendall(b"GET")
            time.sleep(WAIT_S)
            late = Transport(accepted)
            assert min(delay.before(late, 3.0) for _ in range(3)) > 0
            assert late.asked == 3, "where one waited, the next may have as well"
