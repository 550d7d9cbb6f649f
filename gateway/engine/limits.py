"""How much a key may use: so many requests and tokens a minute."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

from services.errors import Overloaded
from services.keys import KeyRecord

PERIOD_S: Final = 60.0

SLACK_S: Final = 1e-6
"""What floating point may lose must not cost the last request of a minute."""


@dataclass(slots=True)
class Bucket:
    """So many a minute, by the generic cell rate algorithm: all of them may be used at once.

    The whole state is one moment: when all that was taken so far would have arrived, had it come evenly. It
    may lie up to a minute ahead. What is only known afterwards (tokens) is charged afterwards and may push it
    further; then the next one waits.
    """

    per_minute: int
    clock: Callable[[], float] = time.monotonic
    _arrival: float = field(init=False, default=0.0)

    def _ahead_s(self, now: float) -> float:
        return max(0.0, self._arrival - now)

    def wait_s(self, amount: float) -> float:
        """Seconds until `amount` can be taken; 0 when it can be now."""
        wait = self._ahead_s(self.clock()) + amount * PERIOD_S / self.per_minute - PERIOD_S
        return wait if wait > SLACK_S else 0.0

    def take(self, amount: float) -> None:
        now = self.clock()
        self._arrival = now + self._ahead_s(now) + amount * PERIOD_S / self.per_minute

    def learn(self, ahead_s: float) -> None:
        """Others know of more that was taken: so many seconds' worth of a minute."""
        self._arrival = max(self._arrival, self.clock() + ahead_s)

    async def ready(self) -> None:
        """Nobody needs to be asked."""

    @property
    def remaining(self) -> int:
        left_s = PERIOD_S - self._ahead_s(self.clock()) + SLACK_S
        return max(0, int(left_s * self.per_minute / PERIOD_S))


class Rate(Protocol):
    """So many a minute."""

    @property
    def per_minute(self) -> int: ...

    @property
    def remaining(self) -> int: ...

    def wait_s(self, amount: float) -> float:
        """Seconds until `amount` can be taken, as far as is known here."""

    def take(self, amount: float) -> None: ...

    async def ready(self) -> None:
        """Ask whoever must be asked before something can be taken."""


class Limiter:
    """The rates of one key. A refused request takes nothing."""

    def __init__(self, *, requests: Rate | None, tokens: Rate | None) -> None:
        self.requests = requests
        self.tokens = tokens
        rates = (("requests", requests), ("tokens", tokens))
        self._rates = [(what, rate) for what, rate in rates if rate is not None]

    @classmethod
    def of(cls, record: KeyRecord) -> Self:
        """Those that this gateway keeps by itself."""
        return cls(
            requests=Bucket(record.rpm) if record.rpm else None,
            tokens=Bucket(record.tpm) if record.tpm else None,
        )

    def admit(self) -> None:
        """Take one request. Raises `Overloaded` with the time to wait, also where others must be asked."""
        for what, rate in self._rates:
            if (wait := rate.wait_s(1)) > 0:
                raise Overloaded(
                    f"this key may use {rate.per_minute} {what} a minute", retry_after_s=max(1.0, wait)
                )
        if self.requests is not None:
            self.requests.take(1)

    async def admit_asking(self) -> None:
        """The same, after asking those who must be asked."""
        if self.requests is not None:
            await self.requests.ready()
        self.admit()

    def charge(self, tokens: int) -> None:
        if self.tokens is not None:
            self.tokens.take(tokens)

    def headers(self) -> dict[str, str]:
        """What is left, in the headers that OpenAI's clients know."""
        found: dict[str, str] = {}
        for what, rate in self._rates:
            found[f"x-ratelimit-limit-{what}"] = str(rate.per_minute)
            found[f"x-ratelimit-remaining-{what}"] = str(rate.remaining)
        return found
