"""How much a key may use: so many requests and tokens a minute."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

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

    @property
    def remaining(self) -> int:
        left_s = PERIOD_S - self._ahead_s(self.clock()) + SLACK_S
        return max(0, int(left_s * self.per_minute / PERIOD_S))


class Limiter:
    """The buckets of one key. A refused request takes nothing."""

    def __init__(self, record: KeyRecord) -> None:
        self.requests = Bucket(record.rpm) if record.rpm else None
        self.tokens = Bucket(record.tpm) if record.tpm else None

    def admit(self) -> None:
        """Take one request. Raises `Overloaded` with the time to wait."""
        for bucket, what in ((self.requests, "requests"), (self.tokens, "tokens")):
            if bucket is not None and (wait := bucket.wait_s(1)) > 0:
                raise Overloaded(
                    f"this key may use {bucket.per_minute} {what} a minute", retry_after_s=max(1.0, wait)
                )
        if self.requests is not None:
            self.requests.take(1)

    def charge(self, tokens: int) -> None:
        if self.tokens is not None:
            self.tokens.take(tokens)

    def headers(self) -> dict[str, str]:
        """What is left, in the headers that OpenAI's clients know."""
        found: dict[str, str] = {}
        for bucket, what in ((self.requests, "requests"), (self.tokens, "tokens")):
            if bucket is not None:
                found[f"x-ratelimit-limit-{what}"] = str(bucket.per_minute)
                found[f"x-ratelimit-remaining-{what}"] = str(bucket.remaining)
        return found
