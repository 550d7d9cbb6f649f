"""What waits for reviewers, in the order of what a decision on it is worth.

The order is that of one run of `score`: decisions that come in later take pieces out of it and move none, so
a reader who goes through it page by page misses nothing and meets nothing twice.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from distill.engine.review.decisions import Decided
from distill.engine.review.index import Pattern, ShardReviews, Waiting
from schemas.distill import ReviewValue

Order = Literal["value", "id"]

DISAGREEMENT_WEIGHT: Final = 0.5
NOVELTY_WEIGHT: Final = 0.3
FREQUENCY_WEIGHT: Final = 0.2
MILLION: Final = 1_000_000
"""Values are compared as whole millionths, which a cursor can name exactly."""

Places = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last piece of a page. `points` are the millionths of its value, in the order of values."""

    evidence_id: str
    points: int | None

    @classmethod
    def read(cls, text: str) -> "Cursor":
        points, _, evidence_id = text.rpartition("-")
        return cls(evidence_id, int(points) if points else None)

    def __str__(self) -> str:
        return self.evidence_id if self.points is None else f"{self.points}-{self.evidence_id}"


class Queue:
    """The waiting pieces of all shards, in columns. Of more than `queue_max`, those that come first in the
    log; `left_out` counts the others, which move up when `score` ran again. `reviewed` has the decisions on
    pieces that waited before.
    """

    def __init__(self, shards: Iterable[ShardReviews], *, queue_max: int) -> None:
        waiting: list[Waiting] = []
        reviewed: Counter[Pattern] = Counter()
        self.reviewed: dict[str, tuple[Decided, ...]] = {}
        self.left_out = 0
        for shard in shards:
            room = queue_max - len(waiting)
            waiting += shard.waiting[:room]
            self.left_out += max(0, len(shard.waiting) - room)
            reviewed.update(one.pattern for one in shard.reviewed)
            self.reviewed |= {one.evidence_id: one.decided for one in shard.reviewed}
        patterns = sorted({one.pattern for one in waiting})
        number = {pattern: place for place, pattern in enumerate(patterns)}
        self._ids = np.array([one.evidence_id for one in waiting], dtype="S64")
        self._pattern = np.array([number[one.pattern] for one in waiting], dtype=np.int64)
        self._disagreement = np.array([one.disagreement for one in waiting], dtype=np.float64)
        self._roles = np.array([pattern.role for pattern in patterns], dtype=object)
        self._alike = np.bincount(self._pattern, minlength=len(patterns))
        self._frequency = 1 - 1 / self._alike
        self._decided = np.array([reviewed[pattern] for pattern in patterns], dtype=np.int64)
        self._novelty = 1 / (1 + self._decided[self._pattern] + self._ranks())
        self._points = np.rint(MILLION * self._values()).astype(np.int64)
        self._orders: dict[Order, Places] = {
            "value": np.lexsort((self._ids, -self._points)),
            "id": np.argsort(self._ids),
        }

    def _ranks(self) -> Places:
        """How many pieces of the same pattern come before each: the greatest disagreements do, then by id."""
        order = np.lexsort((self._ids, -self._disagreement, self._pattern))
        starts = np.cumsum(self._alike) - self._alike
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order)) - starts[self._pattern[order]]
        return ranks

    def _values(self) -> NDArray[np.float64]:
        return (
            DISAGREEMENT_WEIGHT * self._disagreement
            + NOVELTY_WEIGHT * self._novelty
            + FREQUENCY_WEIGHT * self._frequency[self._pattern]
        )

    def open(self, without: Iterable[str], role: str | None) -> Flags:
        """Which pieces are not among those `without`, and of this role, if one is given."""
        flags = np.ones(len(self._ids), np.bool_)
        for evidence_id in without:
            place = self.place_of(evidence_id)
            if place is not None:
                flags[place] = False
        if role is not None and len(flags):
            flags &= (self._roles == role)[self._pattern]
        return flags

    def page(self, flags: Flags, order: Order, limit: int, after: Cursor | None) -> tuple[list[int], bool]:
        """The next places that are flagged, and whether there are more beyond them."""
        places = self._orders[order]
        places = places[flags[places]]
        start = self._beyond(places, order, after) if after is not None else 0
        return places[start : start + limit].tolist(), start + limit < len(places)

    def _beyond(self, places: Places, order: Order, after: Cursor) -> int:
        """The first of sorted places that comes after a cursor, whether or not its piece is still there."""
        first, last = 0, len(places)
        if order == "value":
            falling = -self._points[places]
            first = int(np.searchsorted(falling, -(after.points or 0), "left"))
            last = int(np.searchsorted(falling, -(after.points or 0), "right"))
        ids = self._ids[places[first:last]]
        return first + int(np.searchsorted(ids, after.evidence_id.encode(), "right"))

    def place_of(self, evidence_id: str) -> int | None:
        """Where a piece is in the columns, or None when it does not wait."""
        order, key = self._orders["id"], evidence_id.encode()
        at = int(np.searchsorted(self._ids, key, sorter=order))
        return int(order[at]) if at < len(order) and self._ids[order[at]] == key else None

    def id_at(self, place: int) -> str:
        return bytes(self._ids[place]).decode()

    def cursor_at(self, place: int, order: Order) -> Cursor:
        return Cursor(self.id_at(place), int(self._points[place]) if order == "value" else None)

    def value_at(self, place: int) -> ReviewValue:
        """What a decision on this piece is worth, and why."""
        pattern = self._pattern[place]
        return ReviewValue(
            score=int(self._points[place]) / MILLION,
            disagreement=float(self._disagreement[place]),
            novelty=round(float(self._novelty[place]), 6),
            frequency=round(float(self._frequency[pattern]), 6),
            alike=int(self._alike[pattern]),
            decided=int(self._decided[pattern]),
        )
