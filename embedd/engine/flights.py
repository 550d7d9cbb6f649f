"""One text on its way to its vector, and the batch it leaves with."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from embedd.engine.cache import Entry
from services.context import RequestContext
from services.errors import Overloaded

CHARS_A_TOKEN: Final = 3
"""For limits, not for usage: few texts have fewer characters a token."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for: texts of different plans never share a batch."""

    kind: str
    model: str
    digest: str
    truncate: bool


@dataclass(frozen=True, slots=True)
class Asker:
    """A request that is traced and waits for a text, and since when (`time.perf_counter`)."""

    request: RequestContext
    since_s: float


@dataclass(eq=False, slots=True)
class Flight:
    """One text on its way to its vector, and how many wait for it. `batch` is set while it is out."""

    plan: Plan
    text: str
    done: asyncio.Future[Entry]
    queued_at: float = field(default_factory=time.perf_counter)
    sent_at: float = 0.0
    finished_at: float = 0.0
    waiters: int = 1
    tries: int = 0
    batch: "Batch | None" = None
    askers: list[Asker] = field(default_factory=list)

    @property
    def tokens_estimate(self) -> int:
        return len(self.text) // CHARS_A_TOKEN + 1

    def succeed(self, entry: Entry) -> None:
        self.finished_at = time.perf_counter()
        if not self.done.done():
            self.done.set_result(entry)

    def fail(self, error: Exception) -> None:
        self.finished_at = time.perf_counter()
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # looked at, so that one nobody waits for is not reported as forgotten


@dataclass(eq=False, slots=True)
class Batch:
    """Flights that left together, and the task that is out for them."""

    flights: list[Flight]
    task: asyncio.Task[None] | None = None

    @property
    def abandoned(self) -> bool:
        return not any(flight.waiters for flight in self.flights)


class Abandoned(Overloaded):
    """The text's computation was given up, since everyone who wanted it had left."""


def apportioned(total: int, texts: Sequence[str]) -> list[int]:
    """A call's tokens split over its texts by length, whole numbers that add up to the total."""
    characters = sum(map(len, texts))
    shares: list[int] = []
    seen = given = 0
    for text in texts:
        seen += len(text)
        upto = total * seen // characters
        shares.append(upto - given)
        given = upto
    return shares
