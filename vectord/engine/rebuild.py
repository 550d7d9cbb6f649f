"""A collection's points into a new shard, while the old one serves: the way of every move.

The points are copied page by page. Writes go on meanwhile, to the old shard; the ids they touch are
remembered and copied again, the last of them while no write is under way. Then counts are compared and the
manifest is replaced, which is the move: a crash before it leaves the old shard, a crash after it the new one.
What is left over is removed at the next start.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from schemas.vectors import PointId
from services.errors import Conflict, PlatformError
from vectord.backends import Query, Record, Shard, Where

PAGE: Final = 1000
CATCH_UP_AT: Final = 5_000
"""Touched ids at which the copy pauses to take them over, so that few are left for the end."""

CATCH_UP_ROUNDS: Final = 20
RECALL_K: Final = 10
NEAR: Final = 1e-4
"""Scores this close are the same: engines round differently."""

Transform = Callable[[list[Record]], Awaitable[list[Record]]]
Progress = Callable[[int, int], None]
Run = Callable[..., Awaitable[Any]]


class NotTheSame(PlatformError):
    """The new shard does not hold, or does not find, what the old one does."""

    status = 500
    code = "rebuild_refused"


class Touched:
    """Ids written while a copy is under way; a bounded number."""

    def __init__(self, ids_max: int) -> None:
        self._ids_max = ids_max
        self._ids: dict[PointId, None] = {}
        self._overflowed = False

    def add(self, ids: Sequence[PointId]) -> None:
        if len(self._ids) + len(ids) > self._ids_max:
            self._overflowed = True
        else:
            self._ids.update(dict.fromkeys(ids))

    def __len__(self) -> int:
        return len(self._ids)

    def take(self) -> list[PointId]:
        """Raises 409 when more were written than could be remembered."""
        if self._overflowed:
            raise Conflict(
                f"more than {self._ids_max} points were written while the collection was copied; try again"
                " when it is quieter, or raise VECTORD_REBUILD_CHANGES_MAX",
                code="too_many_changes",
            )
        ids, self._ids = list(self._ids), {}
        return ids


class Recording:
    """The old shard, with a note of every id that is written. All else is passed on."""

    def __init__(self, shard: Shard, touched: Touched) -> None:
        self.recorded = shard
        self._touched = touched

    def upsert(self, records: Sequence[Record]) -> None:
        try:
            self.recorded.upsert(records)
        finally:  # not before: a copy made in between would miss the write
            self._touched.add([record.id for record in records])

    def delete(self, ids: Sequence[PointId]) -> None:
        try:
            self.recorded.delete(ids)
        finally:
            self._touched.add(ids)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.recorded, name)


@dataclass(slots=True)
class Copy:
    """Takes the points of `source` over into `target`. `run` puts a blocking call on a thread.

    `check_free` raises where there is no room for more.
    """

    source: Shard
    target: Shard
    touched: Touched
    run: Run
    progress: Progress
    check_free: Callable[[], None]
    transform: Transform | None = None
    samples_max: int = 100
    done: int = 0
    _sampled: list[PointId] = field(default_factory=list)

    async def everything(self) -> None:
        total = (await self.run(self.source.info)).points
        cursor: str | None = None
        while True:
            page = await self.run(self.source.scroll, Where(), limit=PAGE, cursor=cursor, with_vector=True)
            await self._write(page.records)
            self.done += len(page.records)
            self._sample(page.records, total)
            self.progress(self.done, max(total, self.done))
            if len(self.touched) >= CATCH_UP_AT:
                await self.catch_up()
            cursor = page.cursor
            if cursor is None:
                return

    async def settle_down(self) -> None:
        """Take over what was written meanwhile until little is left, or writes do not let up."""
        for _ in range(CATCH_UP_ROUNDS):
            if not len(self.touched):
                return
            await self.catch_up()

    async def catch_up(self) -> None:
        """Write what is in the source now of the ids that were touched; what is not there is deleted."""
        for ids in _pages(self.touched.take()):
            there = await self.run(self.source.get, ids, with_vector=True)
            await self._write(there)
            gone = set(ids) - {record.id for record in there}
            if gone:
                await self.run(self.target.delete, list(gone))

    async def check_count(self) -> None:
        """Call it while no write is under way."""
        old = (await self.run(self.source.count, Where()), await self.run(self.target.count, Where()))
        if old[0] != old[1]:
            raise NotTheSame(f"there are {old[0]} points, and {old[1]} of them arrived; nothing has changed")

    async def check_samples_early(self, recall_min: float) -> float | None:
        """The same as `check_samples` while writes go on: None where it failed, perhaps because of them."""
        try:
            return await self.check_samples(recall_min)
        except NotTheSame:
            return None

    async def check_samples(self, recall_min: float) -> float:
        """Recall@10 of the target's own search against an exact one, over sampled points.

        Without a transform the truth is the source's, and the points must be the same too. A point that
        was written meanwhile is left out.
        """
        truth_from = self.source if self.transform is None else self.target
        shares = []
        for wanted in await self.run(self.target.get, self._sampled, with_vector=True):
            if self.transform is None and not await self._is_same(wanted):
                continue
            vector = list(wanted.vector)
            truth = await self.run(truth_from.search, Query(RECALL_K, vector, exact=True), Where())
            found = await self.run(self.target.search, Query(RECALL_K, vector), Where())
            if truth:
                good_enough = truth[-1].score - NEAR * max(1.0, abs(truth[-1].score))
                shares.append(sum(hit.score >= good_enough for hit in found) / len(truth))
        recall = min(1.0, sum(shares) / len(shares)) if shares else 1.0
        if recall < recall_min:
            raise NotTheSame(
                f"the new index finds {recall:.3f} of the nearest {RECALL_K}, less than {recall_min}; nothing"
                " has changed"
            )
        return recall

    async def _is_same(self, arrived: Record) -> bool:
        (there, *_) = await self.run(self.source.get, [arrived.id], with_vector=False) or [None]
        if there is None:
            return False
        if _content(there) == _content(arrived):
            return True
        if len(self.touched):  # it may be one of those
            return False
        raise NotTheSame("a point arrived different from what it was; nothing has changed")

    async def _write(self, records: list[Record]) -> None:
        if self.transform is not None:
            records = await self.transform(records)
        if records:
            self.check_free()
            await self.run(self.target.upsert, records)

    def _sample(self, records: Sequence[Record], total: int) -> None:
        step = max(1, total // self.samples_max)
        room = self.samples_max - len(self._sampled)
        self._sampled += [record.id for record in records[::step][:room]]


def _content(record: Record) -> tuple[object, ...]:
    return record.text, record.role, record.role_key, record.payload


def _pages(ids: Sequence[PointId]) -> Iterator[Sequence[PointId]]:
    for start in range(0, len(ids), PAGE):
        yield ids[start : start + PAGE]
