"""How much is asked of a provider and of a model at once and a minute: leases, and a bounded queue for them.

A lease is given back in one place, its `release`, which may be called again and never waits. Whoever
waits for one and goes away leaves the queue, with the lease if it had just been handed over.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from services.errors import Overloaded

BURST_S: Final = 10.0
"""So many seconds' worth of a rate may be used at once."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """None is no limit."""

    concurrency_max: int | None
    waiting_max: int
    rpm: int | None = None
    tpm: int | None = None


class Rate:
    """So many a minute, evenly (the generic cell rate algorithm): one number, the time by which all is paid.

    An amount beyond the burst passes when nothing is owed, and is paid for by those after it.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._interval_s = 60.0 / per_minute
        self._tolerance_s = max(BURST_S, self._interval_s)
        self._paid_at = clock()

    def wait_s(self, amount: float) -> float:
        """Seconds until `amount` may be taken."""
        now = self._clock()
        owed_s = max(self._paid_at, now) - now
        return max(0.0, owed_s + min(amount * self._interval_s, self._tolerance_s) - self._tolerance_s)

    def take(self, amount: float) -> None:
        self._paid_at = max(self._paid_at, self._clock()) + amount * self._interval_s

    def give_back(self, amount: float) -> None:
        """Correct what was taken; a negative amount was too little."""
        self._paid_at -= amount * self._interval_s


class Lease:
    """A place in every line that a call passes. Tokens were guessed; `settle` corrects them."""

    __slots__ = ("_lines", "_tokens")

    def __init__(self, lines: Sequence["Line"], tokens: int) -> None:
        self._lines = lines
        self._tokens = tokens

    def settle(self, tokens: int | None) -> None:
        """What the call has really used; None where nobody knows, then the guess stands."""
        if tokens is not None:
            for line in self._lines:
                line.correct(self._tokens - tokens)
            self._tokens = tokens

    def release(self) -> None:
        lines, self._lines = self._lines, ()
        for line in lines:
            line.leave()


@dataclass(slots=True)
class _Waiter:
    tokens: int
    turn: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Line:
    """The line before one provider, or one of its models. Whoever came first goes in first."""

    def __init__(self, name: str, bounds: Bounds, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.in_flight = 0
        self._clock = clock
        self._waiting: deque[_Waiter] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._requests: Rate | None = None
        self._tokens: Rate | None = None
        self.bounds = bounds
        self.bind(bounds)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def bind(self, bounds: Bounds) -> None:
        """Hold to other bounds from now on. Those inside stay; a rate that is the same goes on."""
        self.bounds = bounds
        self._requests = _rate(self._requests, bounds.rpm, self._clock)
        self._tokens = _rate(self._tokens, bounds.tpm, self._clock)
        self._pump()

    def rate_wait_s(self, tokens: int) -> float:
        """Seconds until the rates let a call in."""
        wait_s = self._requests.wait_s(1) if self._requests else 0.0
        return max(wait_s, self._tokens.wait_s(tokens)) if self._tokens else wait_s

    @property
    def full(self) -> bool:
        most = self.bounds.concurrency_max
        return most is not None and self.in_flight >= most

    def has_room(self, tokens: int) -> bool:
        """Whether a call may go in at once, past nobody."""
        return not self._waiting and not self.full and self.rate_wait_s(tokens) == 0

    def enter(self, tokens: int) -> None:
        """Go in. Only when there is room."""
        self.in_flight += 1
        if self._requests is not None:
            self._requests.take(1)
        if self._tokens is not None:
            self._tokens.take(tokens)

    def leave(self) -> None:
        self.in_flight -= 1
        if self._waiting:
            self._pump()

    def correct(self, tokens: int) -> None:
        if self._tokens is not None:
            self._tokens.give_back(tokens)
            if self._waiting:
                self._pump()

    async def wait(self, tokens: int) -> None:
        """Go in when it is our turn. Raises `Overloaded` when too many wait already."""
        if self.has_room(tokens):
            self.enter(tokens)
            return
        if len(self._waiting) >= self.bounds.waiting_max:
            raise Overloaded(
                f"{len(self._waiting)} calls wait for {self.name}; at most {self.bounds.waiting_max} may",
                code="provider_busy",
                retry_after_s=max(1.0, self.rate_wait_s(tokens)),
            )
        waiter = _Waiter(tokens)
        self._waiting.append(waiter)
        self._pump()
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled():
                self.leave()  # the place came at the very moment its owner went
            else:
                with contextlib.suppress(ValueError):  # passed over already
                    self._waiting.remove(waiter)
                self._pump()
            raise

    def _pump(self) -> None:
        """Let in whoever may go, in order."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and not self.full:
            waiter = self._waiting[0]
            wait_s = self.rate_wait_s(waiter.tokens)
            if wait_s > 0:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(wait_s, self._pump)
                return
            self._waiting.popleft()
            if not waiter.turn.done():
                self.enter(waiter.tokens)
                waiter.turn.set_result(None)


def _rate(present: Rate | None, per_minute: int | None, clock: Callable[[], float]) -> Rate | None:
    if per_minute is None:
        return None
    if present is not None and present.per_minute == per_minute:
        return present
    return Rate(per_minute, clock)


class Lines:
    """Every line there is, by name: of configured providers, and of models with limits of their own."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lines: dict[str, Line] = {}

    def of(self, name: str, bounds: Bounds) -> Line:
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = Line(name, bounds, self._clock)
        elif line.bounds != bounds:
            line.bind(bounds)
        return line

    def in_use(self) -> dict[str, tuple[int, int]]:
        """How many calls are in and before each door where there are any."""
        return {
            name: (line.in_flight, line.waiting)
            for name, line in self._lines.items()
            if line.in_flight or line.waiting
        }


def try_lease(lines: Sequence[Line], tokens: int) -> Lease | None:
    """A place in all lines at once, without waiting, or none."""
    if not all(line.has_room(tokens) for line in lines):
        return None
    for line in lines:
        line.enter(tokens)
    return Lease(lines, tokens)


async def lease(lines: Sequence[Line], tokens: int) -> Lease:
    """A place in all lines, waiting for each in turn: the narrower first, so that nobody blocks the wider."""
    entered: list[Line] = []
    try:
        for line in lines:
            await line.wait(tokens)
            entered.append(line)
    except BaseException:
        for line in entered:
            line.leave()
        raise
    return Lease(lines, tokens)
