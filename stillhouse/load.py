"""Load on the gateway from this machine: so many connections, each asking as soon as it was answered."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from services.errors import Unavailable
from services.h1 import BrokenOff, H1Client, NotConnected

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
CONNECT_TIMEOUT_S: Final = 2.0
TELL_S: Final = 0.1
BROKEN: Final = "broken off"


@dataclass(slots=True)
class Measured:
    """What came of it: seconds of each answer that was a success, and how often each failure was met."""

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Successes a second."""
        return len(self.latencies_s) / self.seconds if self.seconds else 0.0

    def quantile_ms(self, share: float) -> float | None:
        """Milliseconds within which this share of the successes was answered; None where there was none."""
        if not self.latencies_s:
            return None
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000


@dataclass(frozen=True, slots=True)
class Load:
    """Bodies to post in turn to one path, by so many connections for so many seconds."""

    path: str
    bodies: Sequence[bytes]
    connections: int
    seconds: float


async def offer(
    url: str, headers: Mapping[str, str], load: Load, progress: Callable[[float], None]
) -> Measured:
    """Ask until the time is over; `progress` is told the seconds that have passed, now and then.

    What is under way then is waited for. Raises `Unavailable` when nobody answers at `url`.
    """
    measured = Measured()
    told_s = 0.0
    bodies = itertools.cycle(load.bodies)
    loop = asyncio.get_running_loop()
    async with H1Client(url, connect_timeout_s=CONNECT_TIMEOUT_S, headers=headers) as client:
        started = loop.time()
        end = started + load.seconds

        async def ask() -> None:
            nonlocal told_s
            while (asked := loop.time()) < end:
                failure = await _failure(client, load.path.encode(), next(bodies))
                answered = loop.time()
                if failure is None:
                    measured.latencies_s.append(answered - asked)
                else:
                    measured.failures[failure] += 1
                if answered - started >= told_s + TELL_S:
                    told_s = answered - started
                    progress(told_s)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(load.connections):
                    group.create_task(ask())
        except* NotConnected as broken:
            raise Unavailable(str(broken.exceptions[0])) from broken
        measured.seconds = loop.time() - started
    return measured


async def _failure(client: H1Client, path: bytes, body: bytes) -> str | None:
    """Ask once: None for a success, else the error's code."""
    try:
        exchange = await client.send(b"POST", path, [(b"content-type", b"application/json")], body)
        try:
            status = await exchange.head()
            answer = await exchange.body(bytes_max=ANSWER_BYTES_MAX)
        finally:
            exchange.close()
    except BrokenOff:
        return BROKEN
    return None if status < 400 else _code(status, answer)


def _code(status: int, answer: bytes) -> str:
    try:
        return f"{status} {orjson.loads(answer)['error']['code']}"
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return str(status)
