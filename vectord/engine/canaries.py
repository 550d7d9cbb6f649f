"""Whether the role gate holds, asked all the time: points of one role, sought by every way as another.

The canaries are real points, drawn anew in each round, so every collection is probed and none is filled with
points that nobody wrote. Each is sought with its own vector and words, which no other point is nearer to.
"""

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from schemas.vectors import GetRequest, Hit, PointSelector, ScrollRequest, SearchRequest, StoredPoint
from services.errors import NotFound, PlatformError, Unavailable
from vectord.backends import Query, Record, Where
from vectord.engine.collections import Collections
from vectord.engine.core import Engine
from vectord.engine.metrics import Metrics
from vectord.engine.opened import Opened
from vectord.engine.roles import Roles
from vectord.engine.runner import Runner

log = structlog.get_logger(__name__)

DRAWN: Final = 64
"""Points that are looked at to find canaries of several roles, in one collection."""
K: Final = 10


@dataclass(frozen=True, slots=True)
class Canary:
    """A point, and what its role means today; None: nothing, so nobody may see it."""

    record: Record
    role: str | None


class Canaries:
    def __init__(
        self,
        engine: Engine,
        collections: Collections,
        *,
        runner: Runner,
        metrics: Metrics,
        probes_max: int,
        chance: random.Random | None = None,
    ) -> None:
        """A round asks about `probes_max` canaries at most, over all gated collections."""
        self._engine = engine
        self._collections = collections
        self._runner = runner
        self._metrics = metrics
        self._probes_max = probes_max
        self._chance = chance or random.Random()  # noqa: S311 - which points are drawn is no secret
        self._leaked = 0

    async def check(self) -> None:
        """Raise once a point was shown to a role that may not see it, and until the next start."""
        if self._leaked:
            raise Unavailable(
                f"the role gate showed {self._leaked} canaries to other roles; the log says where"
            )

    async def check_index(self) -> None:
        """Raise once the index let through what the check after it had to stop."""
        stopped = sum(
            sample.value for metric in self._metrics.leaks.collect() for sample in metric.samples[:1]
        )
        if stopped:
            raise Unavailable(f"the index let {stopped:.0f} hits of other roles through, which were stopped")

    async def round(self) -> None:
        """Probe every gated collection, in a random order, until the round's probes are used up."""
        if not self._probes_max:
            return
        gated = [item.name for item in await self._collections.describe_all() if item.gated and item.count]
        self._chance.shuffle(gated)
        for name in gated[: self._probes_max]:
            try:
                await self._probe(name, max(1, self._probes_max // len(gated)))
            except NotFound:
                continue  # deleted meanwhile
            except PlatformError as error:
                log.warning("canaries not probed", collection=name, reason=error.code)

    async def _probe(self, name: str, count: int) -> None:
        catalogue = self._engine.catalogue()
        roles = Roles(catalogue)
        with self._collections.use(name) as opened:
            canaries = await self._draw(opened, roles)
            hybrid = opened.spec.hybrid
        known = [role.name for role in catalogue.roles] or [item.role for item in canaries if item.role]
        for canary in canaries[:count]:
            others = [name for name in known if canary.role not in roles.grant(name, None).visible]
            shown = []
            if others:
                asked = self._chance.choice(others)
                shown = [way async for way in self._ways_in(name, canary.record, asked, hybrid=hybrid)]
            missing = canary.role is not None and not await self._is_shown(name, canary)
            if self._engine.catalogue() is not catalogue:
                return  # what was right when the round began need not be now
            self._metrics.canary_probes.inc()
            if shown:
                self._leaked += 1
                self._metrics.canary_leaks.inc()
                log.error("role gate leaked", collection=name, ways=shown)
            if missing:
                self._metrics.canaries_missing.inc()
                log.error("role gate hides a point from its own role", collection=name)

    async def _draw(self, opened: Opened, roles: Roles) -> list[Canary]:
        """Points of as many roles as a look at two corners of the collection finds, one of each."""
        somewhere = [self._chance.gauss(0, 1) for _ in range(opened.manifest.dimension)]
        query = Query(DRAWN, somewhere, with_vector=True)
        hits = await self._runner.run(opened.shard.search, query, Where())
        page = await self._runner.run(
            opened.shard.scroll, Where(), limit=DRAWN, cursor=None, with_vector=True
        )
        records = [*(hit.record for hit in hits), *page.records]
        self._chance.shuffle(records)
        return list(
            {
                roles.canonical(record.role): Canary(record, roles.canonical(record.role))
                for record in records
            }.values()
        )

    async def _ways_in(self, name: str, record: Record, role: str, *, hybrid: bool) -> AsyncIterator[str]:
        """The routes that show the point, or count it, to a role that may not see it."""
        engine, vector = self._engine, list(record.vector)
        for exact in (False, True):
            found = await engine.searches.search(
                name, SearchRequest(vector=vector, k=K, role=role, exact=exact), None
            )
            if _has(found.hits, record):
                yield "exact search" if exact else "search"
        if hybrid and record.text and record.text.strip():
            asked = SearchRequest(text=record.text, mode="sparse", k=K, role=role)
            if _has((await engine.searches.search(name, asked, None)).hits, record):
                yield "sparse search"
        if (await engine.get(name, GetRequest(ids=[record.id], role=role), None)).points:
            yield "get"
        if (await engine.scroll(name, ScrollRequest(ids=[record.id], role=role), None)).points:
            yield "scroll"
        if (await engine.count(name, PointSelector(ids=[record.id], role=role), None)).count:
            yield "count"

    async def _is_shown(self, name: str, canary: Canary) -> bool:
        """Whether its own role gets the point, or the point is gone or has become another role's."""
        record = canary.record
        if (await self._engine.get(name, GetRequest(ids=[record.id], role=record.role), None)).points:
            return True
        with self._collections.use(name) as opened:
            there = await self._runner.run(opened.shard.get, [record.id], with_vector=False)
        return not there or there[0].role != record.role


def _has(shown: Sequence[Hit | StoredPoint], record: Record) -> bool:
    return any(item.id == record.id for item in shown)
