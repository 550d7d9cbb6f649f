"""Limits that hold over several gateways, though most requests are decided without asking anybody.

Requests are taken from the common count some at a time, ahead of use. Tokens are known only afterwards; they
are charged together, a moment later. While the common count cannot be had, each gateway goes by its own.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from gateway.backends import Rates
from gateway.engine.limits import PERIOD_S, Bucket, Limiter
from services.errors import PlatformError
from services.keys import KeyRecord
from services.tasks import TaskSet

LEASE_SHARE: Final = 60
"""A sixtieth of what a minute allows is taken ahead: what it lets through in a second."""

LEASE_MAX: Final = 256
LEASE_S: Final = 10.0
"""What was taken ahead and not used by then is given up: it came from a time that is over."""

OWN_S: Final = 1.0
"""How long a gateway goes by its own count after the common one failed."""


class Leased:
    """Requests a minute, of all gateways together. Never more are let through than the common count gave."""

    def __init__(
        self, name: str, per_minute: int, rates: Rates, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.per_minute = per_minute
        self._name = name
        self._rates = rates
        self._clock = clock
        self._own = Bucket(per_minute, clock)
        self._size = min(LEASE_MAX, max(1, per_minute // LEASE_SHARE))
        self._left = 0
        self._lease_until = 0.0
        self._own_until = 0.0
        self._free_at = 0.0
        self._asking = asyncio.Lock()
        self._waiting = 0

    def wait_s(self, amount: float) -> float:
        """Seconds until `amount` may be had. More than 0 also where others must be asked first (`ready`)."""
        now = self._clock()
        if now < self._own_until:
            return self._own.wait_s(amount)
        if self._left >= amount and now < self._lease_until:
            return 0.0
        return max(self._free_at - now, PERIOD_S / self.per_minute)

    def take(self, amount: float) -> None:
        self._own.take(amount)
        self._left = max(0, self._left - int(amount))

    async def ready(self) -> None:
        """See that there is something to give out, if there can be."""
        self._waiting += 1
        try:
            async with self._asking:
                if self._must_ask():
                    await self._ask()
        finally:
            self._waiting -= 1

    def _must_ask(self) -> bool:
        """Whether the common count may have something that is needed. What others took never comes back."""
        now = self._clock()
        if now < self._own_until or (self._left and now < self._lease_until):
            return False
        return now >= self._free_at

    async def _ask(self) -> None:
        """Take some for all who wait, who would otherwise go to a slow store one after the other."""
        amount = min(LEASE_MAX, max(self._size, self._waiting))
        try:
            taken = await self._rates.take(self._name, amount, self.per_minute, whole=False)
        except PlatformError:
            self._own_until = self._clock() + OWN_S
            return
        now = self._clock()
        self._left, self._lease_until = taken.amount, now + LEASE_S
        self._free_at = now + taken.ahead_s + PERIOD_S / self.per_minute - PERIOD_S

    @property
    def remaining(self) -> int:
        """As far as this gateway knows."""
        now = self._clock()
        if now < self._own_until:
            return self._own.remaining
        used_s = max(0.0, self._free_at - now + PERIOD_S - PERIOD_S / self.per_minute)
        return self._left + max(0, int((PERIOD_S - used_s) * self.per_minute / PERIOD_S + 1e-6))


class Charged:
    """Tokens a minute, of all gateways together; what the others use is learnt with the next charge."""

    def __init__(
        self,
        name: str,
        per_minute: int,
        rates: Rates,
        tasks: TaskSet,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.per_minute = per_minute
        self._name = name
        self._rates = rates
        self._tasks = tasks
        self._known = Bucket(per_minute, clock)
        self._owed = 0
        self._telling: asyncio.Task[None] | None = None

    def wait_s(self, amount: float) -> float:
        return self._known.wait_s(amount)

    @property
    def remaining(self) -> int:
        return self._known.remaining

    def take(self, amount: float) -> None:
        self._known.take(amount)
        self._owed += int(amount)
        if self._owed and self._telling is None:
            self._telling = self._tasks.start(self._tell(), name="charge tokens")

    async def ready(self) -> None:
        """Nothing needs to be asked: what is used is counted afterwards."""

    async def _tell(self) -> None:
        """Charge what is owed. What cannot be told now is told with the next charge."""
        try:
            while self._owed:
                owed, self._owed = self._owed, 0
                try:
                    taken = await self._rates.take(self._name, owed, self.per_minute, whole=True)
                except PlatformError:
                    self._owed = min(
                        self._owed + owed, self.per_minute
                    )  # more would tell of a time long over
                    return
                self._known.learn(taken.ahead_s)
        finally:
            self._telling = None


def shared_limits(rates: Rates, tasks: TaskSet) -> Callable[[KeyRecord], Limiter]:
    """Makes the limits of a key that all gateways with the same store keep together."""

    def of(record: KeyRecord) -> Limiter:
        return Limiter(
            requests=Leased(f"{record.id}:requests", record.rpm, rates) if record.rpm else None,
            tokens=Charged(f"{record.id}:tokens", record.tpm, rates, tasks) if record.tpm else None,
        )

    return of
