"""How much a key may use: so many requests and tokens a minute."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from services.errors import Overloaded
from services.keys import KeyRecord


@dataclass(slots=True)
class Bucket:
    """So many a minute, refilled evenly; all of them may be used at once.

    What is only known afterwards (tokens) is charged afterwards and may overdraw; then the next one waits.
    """

    per_minute: int
    clock: Callable[[], float] = time.monotonic
    _level: float = field(init=False)
    _seen: float = field(init=False)

    def __post_init__(self) -> None:
        self._level = float(self.per_minute)
        self._seen = self.clock()

    def _refill(self) -> None:
        now = self.clock()
        self._level = min(self.per_minute, self._level + (now - self._seen) * self.per_minute / 60)
        self._seen = now

    def wait_s(self, amount: float) -> float:
        """Seconds until `amount` can be taken; 0 when it can be now."""
        self._refill()
        return max(0.0, (amount - self._level) * 60 / self.per_minute)

    def take(self, amount: float) -> None:
        self._refill()
        self._level -= amount

    @property
    def remaining(self) -> int:
        self._refill()
        return max(0, int(self._level))


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
