"""Rates that several gateways keep together."""

from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from services.errors import Unavailable

PERIOD_S: Final = 60.0


class Taken(NamedTuple):
    """What could be had, and how many seconds of the period are used up with it."""

    amount: int
    ahead_s: float


class Rates(Protocol):
    """A count for each name, which all who share it take from."""

    async def take(self, name: str, amount: int, per_minute: int, *, whole: bool) -> Taken:
        """Take up to `amount`, or all of it with `whole`. Raises `Unavailable`, within a short time."""

    async def close(self) -> None: ...


@dataclass(slots=True)
class FakeRates:
    """The same in memory, by a clock that stands still. It may be `down`."""

    down: bool = False
    used_s: dict[str, float] = field(default_factory=dict)

    async def take(self, name: str, amount: int, per_minute: int, *, whole: bool) -> Taken:
        if self.down:
            raise Unavailable("the store of limits is down")
        each = PERIOD_S / per_minute
        ahead = self.used_s.get(name, 0.0)
        taken = amount if whole else max(0, min(amount, int((PERIOD_S - ahead) / each + 1e-6)))
        self.used_s[name] = ahead + taken * each
        return Taken(taken, self.used_s[name])

    async def close(self) -> None:
        return
