"""The stage `index`: bring a vectord collection up to what the evidence says now, sending only what differs.

What is there is asked of vectord itself, so that a run that was killed, or a collection that was restored or
removed, needs no care: the next run sends what is missing. Work behind a role goes into a gated collection,
work behind none into one beside it.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import structlog

from distill.backends import Peers
from distill.engine import shards
from distill.engine.contexts.groups import Groups
from distill.engine.contexts.points import (
    FINGERPRINT,
    PAYLOAD_INDEXES,
    Drafts,
    PointsTask,
    draft_points,
    with_groups,
)
from distill.engine.contexts.retrieval import EVIDENCE_ID, open_name
from distill.engine.library import Library
from distill.engine.pool import Pool
from distill.engine.progress import Progress
from schemas.canonical import content_id
from schemas.distill import JobRequest
from schemas.vectors import CollectionSpec, GetRequest, Point, PointSelector, ScrollRequest, UpsertRequest
from services.clients import VectordClient
from services.errors import InvalidRequest

log = structlog.get_logger(__name__)

OPTIONS: Final = frozenset({"collection", "embed_model", "include_partial", "pii"})
"""The fields of a job that belong to the stage."""
NAME_CHARS_MAX: Final = 64
"""Of a collection."""
ASKED: Final = 500
"""Ids in one question for what is there, and points on one page of it."""
SENT: Final = 64
"""Points in one call: their texts are embedded before it is answered."""
GROUPED: Final = 0.3
SENT_ALL: Final = 0.95
"""How far the job is when the groups are known, and when everything is sent."""
UNKNOWN_ROLE: Final = "role.unknown"
REFUSED: Final = "vectord.refused"

Piece = TypeVar("Piece")


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """Where points go: the gated collection, the one beside it, and the model that embeds for both.

    `job` says what is left out and masked, as for an export.
    """

    collection: str
    model: str
    job: JobRequest

    def name_for(self, point: Point) -> str:
        return self.collection if point.role is not None else open_name(self.collection)

    def spec(self, name: str) -> CollectionSpec:
        return CollectionSpec(
            model=self.model,
            gated=name == self.collection,
            hybrid=True,
            payload_indexes=PAYLOAD_INDEXES,
        )


def checked(job: JobRequest, model: str) -> IndexOptions:
    """What a job asks for, with `model` where it names none. Raises `InvalidRequest`."""
    room = NAME_CHARS_MAX - len(open_name(""))
    if len(job.collection) > room:
        raise InvalidRequest(
            f"`collection` has {len(job.collection)} characters; at most {room} leave room for the collection"
            " beside it",
            param="collection",
        )
    return IndexOptions(job.collection, job.embed_model or model, job)


def index(
    data: Path, peers: Callable[[], Peers], options: IndexOptions, pool: Pool, progress: Progress
) -> dict[str, int]:
    """Bring the collections up to the evidence; blocks until that is done.

    `counts["in"]` is every piece of evidence and every point that was removed, and the sum of the others.
    Raises `Conflict` when a stage before is missing or stale, or a collection is of another kind, and what
    vectord fails with.
    """
    groups = Groups.of_library(data, pool, progress, end=GROUPED)

    async def run() -> dict[str, int]:
        async with peers() as entered:
            indexing = Indexing(entered.vectord, options, groups, progress)
            await indexing.run(data, pool)
            return dict(indexing.counts)

    return asyncio.run(run())


class Indexing:
    """One run of the stage."""

    def __init__(
        self, vectord: VectordClient, options: IndexOptions, groups: Groups, progress: Progress
    ) -> None:
        self.counts: Counter[str] = Counter(dict.fromkeys(("in", "sent", "unchanged", "removed"), 0))
        self._vectord = vectord
        self._options = options
        self._groups = groups
        self._progress = progress
        self._made: set[str] = set()
        self._roles: set[str] = set()
        self._kept: set[int] = set()

    async def run(self, data: Path, pool: Pool) -> None:
        """Send what is new or changed, then remove what belongs there no more."""
        library = Library(data / shards.FOLDER)
        stamp = content_id(library.hashes())
        job = self._options.job
        tasks = [PointsTask(data / shards.FOLDER, stamp, shard, job) for shard in library.shards()]
        await self._make(open_name(self._options.collection))  # also when nothing was accepted yet
        for number, drafts in enumerate(pool.map(draft_points, tasks)):
            await self._take(drafts, number, len(tasks))
        await self._remove_others()
        self.counts["in"] = sum(count for name, count in self.counts.items() if name != "in")

    async def _take(self, drafts: Drafts, number: int, of: int) -> None:
        """Bring the points of one shard, the `number`th."""
        self.counts.update(drafts.reasons)
        self._roles |= drafts.roles
        total, done = len(drafts.points), 0
        for (name, role), points in _by_place(drafts.points, self._options):
            await self._make(name)
            for batch in _batches(points, ASKED):
                await self._bring(name, role, with_groups(batch, self._groups))
                done += len(batch)
                self._progress.reach(number * total + done, of * total, start=GROUPED, end=SENT_ALL)

    async def _make(self, name: str) -> None:
        if name not in self._made:
            await self._vectord.create(name, self._options.spec(name))
            self._made.add(name)

    # --- what is sent -------------------------------------------------------------------------

    async def _bring(self, name: str, role: str | None, points: Sequence[Point]) -> None:
        """Send the points of one role that are not there, or not so."""
        try:
            there = await self._fingerprints(name, role, points)
        except InvalidRequest as error:
            if error.code != "role_unknown":
                raise
            self.counts[UNKNOWN_ROLE] += len(points)
            return
        differing = [point for point in points if there.get(str(point.id)) != point.payload[FINGERPRINT]]
        self.counts["unchanged"] += len(points) - len(differing)
        self._kept.update(_prefix(str(point.id)) for point in points)
        for batch in _batches(differing, SENT):
            await self._send(name, batch)

    async def _fingerprints(self, name: str, role: str | None, points: Sequence[Point]) -> dict[str, object]:
        request = GetRequest(ids=[point.id for point in points], role=role, with_=["payload"])
        found = (await self._vectord.points(name, request)).points
        return {str(point.id): (point.payload or {}).get(FINGERPRINT) for point in found}

    async def _send(self, name: str, points: Sequence[Point]) -> None:
        """Send points; set aside those that vectord names as what it cannot take."""
        left = list(points)
        while left:
            try:
                await self._vectord.upsert(name, UpsertRequest(points=left))
            except InvalidRequest as error:
                refused = left.pop(_place_of(error, len(left)))
                self._kept.discard(_prefix(str(refused.id)))
                self.counts[REFUSED] += 1
                log.warning("point refused", collection=name, code=error.code, param=error.param)
            else:
                self.counts["sent"] += len(left)
                return

    # --- what is removed ----------------------------------------------------------------------

    async def _remove_others(self) -> None:
        """Remove the points that this run did not keep: their evidence is accepted no more, or is gone."""
        there = {one.name for one in (await self._vectord.collections()).collections}
        gated, beside = self._options.collection, open_name(self._options.collection)
        known = {role.name for role in (await self._vectord.roles()).roles}
        places = [(gated, role) for role in sorted(self._roles | known)] + [(beside, None)]
        for name, role in places:
            if name in there:
                await self._remove_in(name, role)
                self._progress.reach(1, 1, end=SENT_ALL)

    async def _remove_in(self, name: str, role: str | None) -> None:
        gone = [one async for one in self._listed(name, role) if _prefix(one) not in self._kept]
        for batch in _batches(gone, ASKED):
            answer = await self._vectord.delete(name, PointSelector(ids=list(batch), role=role))
            self.counts["removed"] += answer.deleted

    async def _listed(self, name: str, role: str | None) -> AsyncIterator[str]:
        """The ids that a role sees."""
        cursor: str | None = None
        while True:
            request = ScrollRequest(role=role, with_=[], limit=ASKED, cursor=cursor)
            try:
                page = await self._vectord.scroll(name, request)
            except InvalidRequest as error:
                if error.code != "role_unknown":
                    raise
                return
            for point in page.points:
                yield str(point.id)
            cursor = page.cursor
            if cursor is None:
                return


# --- parts ------------------------------------------------------------------------------------


def _by_place(
    points: Iterable[Point], options: IndexOptions
) -> Iterator[tuple[tuple[str, str | None], list[Point]]]:
    """The points by collection and role."""
    ordered = sorted(points, key=lambda point: (point.role or "", str(point.id)))
    for role, some in itertools.groupby(ordered, key=lambda point: point.role):
        alike = list(some)
        yield (options.name_for(alike[0]), role), alike


def _batches(pieces: Sequence[Piece], size: int) -> Iterator[Sequence[Piece]]:
    return (pieces[start : start + size] for start in range(0, len(pieces), size))


def _prefix(evidence_id: str) -> int:
    """The first 64 bits of an id, since a million of them take little room; -1 for no id of evidence."""
    return int(evidence_id[:16], 16) if EVIDENCE_ID.fullmatch(evidence_id) else -1


def _place_of(error: InvalidRequest, count: int) -> int:
    """Which of the points an error names. Raises it again when it names none."""
    what, _, rest = (error.param or "").partition(".")
    number = rest.partition(".")[0]
    if what != "points" or not number.isdigit() or int(number) >= count:
        raise error
    return int(number)
