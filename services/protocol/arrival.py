"""How long the bytes of a request lay in the kernel before we came to read them."""

import asyncio
import socket
import sys
import time
from typing import Final

TCP_INFO: Final = getattr(socket, "TCP_INFO", None)  # Linux has it; elsewhere nobody tells
LAST_DATA_RECEIVED: Final = slice(52, 56)
"""Of `struct tcp_info`: milliseconds since data came, counted in ticks of the kernel."""

TICK_S: Final = (
    time.clock_getres(time.CLOCK_MONOTONIC_COARSE) if hasattr(time, "CLOCK_MONOTONIC_COARSE") else 0.01
)

LEAST_S: Final = 0.01
"""What waited for less counts as not waiting: a full turn of the loop takes that long, and to ask about each
request of every such turn would cost more than it tells.
"""


class Delay:
    """Tells it of one read after another, all of the same event loop.

    The sockets that are ready at once are read in the order in which they became so. Where the first of them
    did not wait, none did, so that one question a turn of the loop is enough while all is well.
    """

    def __init__(self) -> None:
        self._turn_s = -1.0
        self._late = False

    def before(self, transport: asyncio.BaseTransport, turn_s: float) -> float:
        """Seconds, at least, for which what was just read had been there; 0 for less than `LEAST_S`.

        `turn_s` is the event loop's own time, which stands still for a turn.
        """
        if turn_s == self._turn_s and not self._late:
            return 0.0
        self._turn_s = turn_s
        age_s = _age_s(transport)
        self._late = age_s > 0.0
        return age_s


def _age_s(transport: asyncio.BaseTransport) -> float:
    connection = transport.get_extra_info("socket")
    if TCP_INFO is None or connection is None:
        return 0.0
    try:
        told: bytes = connection.getsockopt(socket.IPPROTO_TCP, TCP_INFO, LAST_DATA_RECEIVED.stop)
    except OSError:  # no TCP, or gone meanwhile
        return 0.0
    # Ticks are counted, not parts of them: what took one may have taken no time at all.
    age_s = int.from_bytes(told[LAST_DATA_RECEIVED], sys.byteorder) / 1000 - TICK_S
    return age_s if age_s >= LEAST_S else 0.0
