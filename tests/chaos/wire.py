"""A wire between two network devices of this machine, which can be slow, lossy or dead.

Written because `tc netem` is a module that many kernels lack. `python -m tests.chaos.wire ONE OTHER` makes
the two TUN devices, says `ready`, and carries packets from one to the other. Each line on its standard input
is a `Quality` as JSON, which holds from then on.
"""

import fcntl
import heapq
import json
import os
import random
import select
import struct
import sys
import time
from dataclasses import dataclass
from typing import Final

TUNSETIFF: Final = 0x400454CA
IFF_TUN_NO_PI: Final = 0x1001
PACKET_BYTES_MAX: Final = 65_536
UNDER_WAY_MAX: Final = 20_000
LINE_BYTES_MAX: Final = 4096


@dataclass(frozen=True)
class Quality:
    """`delay_s` for each way, `loss` the share of packets that get lost; 1.0 is a wire that was cut."""

    delay_s: float = 0.0
    loss: float = 0.0


def device(name: str) -> int:
    """Make a TUN device, which is gone when the file that is returned is closed."""
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN_NO_PI))
    return file


class Wire:
    """Carries packets between two files."""

    def __init__(self, one: int, other: int) -> None:
        self._ends = {one: other, other: one}
        self._under_way: list[tuple[float, int, int, bytes]] = []
        self._count = 0
        self._chance = random.Random(0)
        self.quality = Quality()

    def carry(self, orders: int) -> None:
        """Until the file of the orders ends."""
        while True:
            ready, _, _ = select.select([orders, *self._ends], [], [], self._wait_s())
            if orders in ready:
                said = os.read(orders, LINE_BYTES_MAX)
                if not said:
                    return
                self.quality = Quality(**json.loads(said.splitlines()[-1]))
            for end in self._ends:
                if end in ready:
                    self._take(end)
            self._deliver()

    def _wait_s(self) -> float | None:
        return max(0.0, self._under_way[0][0] - time.monotonic()) if self._under_way else None

    def _take(self, end: int) -> None:
        try:
            packet = os.read(end, PACKET_BYTES_MAX)
        except OSError:  # the device is down
            return
        if self._chance.random() < self.quality.loss or len(self._under_way) >= UNDER_WAY_MAX:
            return
        self._count += 1
        due = time.monotonic() + self.quality.delay_s
        heapq.heappush(self._under_way, (due, self._count, self._ends[end], packet))

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._under_way and self._under_way[0][0] <= now:
            _, _, end, packet = heapq.heappop(self._under_way)
            try:
                os.write(end, packet)
            except OSError:  # the device is down: the packet is lost, as on any wire
                continue


if __name__ == "__main__":
    wire = Wire(device(sys.argv[1]), device(sys.argv[2]))
    print("ready", flush=True)
    wire.carry(sys.stdin.fileno())
