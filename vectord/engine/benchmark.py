"""How well and how fast a collection is searched: against exact search, for each of several settings."""

import asyncio
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from schemas.vectors import (
    BenchmarkedSetting,
    BenchmarkRequest,
    BenchmarkResponse,
    PointId,
    Timing,
)
from services.errors import Conflict, Forbidden, Overloaded, PlatformError
from vectord.backends import Query, Scored, Where
from vectord.engine.collections import Collections
from vectord.engine.gate import Limited, pass_for
from vectord.engine.limits import Limits, at_most
from vectord.engine.opened import Opened
from vectord.engine.roles import Roles
from vectord.engine.runner import Runner

PAGE: Final = 1000
SCANNED_MAX: Final = 200_000
"""Points among which the queries are drawn; a larger collection is drawn from its first ones."""

AT_ONCE: Final = 200
LEAN: Final = 0.3
"""How far a question leans to another point: on GloVe, recall is then at most that of words held out."""


class Benchmark:
    """Measures one collection at a time, each search in a call of its own: others have their turn."""

    def __init__(
        self,
        collections: Collections,
        roles: Callable[[], Roles],
        *,
        runner: Runner,
        limits: Limits,
        timeout_s: float,
    ) -> None:
        self._collections = collections
        self._roles = roles
        self._runner = runner
        self._limits = limits
        self._timeout_s = timeout_s
        self._busy = asyncio.Lock()

    async def run(self, name: str, request: BenchmarkRequest, limited: Limited) -> BenchmarkResponse:
        """Measure, and choose. Raises 429 while another is under way, 503 when it takes too long."""
        at_most("k", request.k, self._limits.k_max - 1, param="k")
        if request.apply and limited is not None:
            raise Forbidden(
                "this key is limited to some job roles: `apply` changes the search of all",
                code="role_forbidden",
                param="apply",
            )
        if self._busy.locked():
            raise Overloaded("another benchmark is under way; one runs at a time")
        async with self._busy:
            with self._collections.use(name) as opened:
                gate = pass_for(
                    opened,
                    self._roles(),
                    limited,
                    self._limits,
                    role=request.role,
                    filter_=request.filter,
                )
                try:
                    async with asyncio.timeout(self._timeout_s):
                        return await self._measure(opened, request, gate.where)
                except TimeoutError:
                    raise PlatformError(
                        f"the benchmark took longer than {self._timeout_s:g} s; ask for fewer queries or"
                        " settings, or raise VECTORD_BENCHMARK_TIMEOUT_S",
                        code="benchmark_timeout",
                    ) from None

    async def _measure(self, opened: Opened, request: BenchmarkRequest, where: Where) -> BenchmarkResponse:
        everything = Where(scope=where.scope)
        ids = await self._drawn(opened, everything, request.queries)
        if not ids:
            raise Conflict(
                f"the collection {opened.name!r} has no points to ask for", code="collection_empty"
            )
        matching = await self._runner.run(opened.shard.count, where)
        total = await self._runner.run(opened.shard.count, Where())
        asked = await self._questions(opened, ids)
        exact = [Query(request.k + 1, vector, exact=True) for vector in asked.values()]
        truth, exact_timing = await self._timed(opened, exact, where, request.concurrency)
        settings = []
        for ef in request.sweep.ef:
            queries = [Query(request.k + 1, vector, ef=ef) for vector in asked.values()]
            found, timing = await self._timed(opened, queries, where, request.concurrency)
            recall = _recall(list(asked), found, truth, request.k)
            settings.append(BenchmarkedSetting(ef=ef, recall=recall, **timing.model_dump()))
        best = _best(settings, request.target_recall)
        if request.apply and best is not None:
            await self._collections.tune(opened, best.ef)
        return BenchmarkResponse(
            collection=opened.name,
            engine=opened.manifest.engine,
            points=total,
            dimension=opened.manifest.dimension,
            selectivity=round(matching / total, 6),
            queries=len(asked),
            k=request.k,
            concurrency=request.concurrency,
            settings=settings,
            exact=exact_timing,
            best=best,
            ef=opened.ef,
            build_s=opened.built_s,
            rss_bytes=_rss_bytes(opened),
            disk_bytes=await self._collections.bytes_of(opened),
        )

    async def _drawn(self, opened: Opened, where: Where, wanted: int) -> list[PointId]:
        """Ids of points, drawn evenly; the same ones each time, so that runs can be compared."""
        drawn: list[PointId] = []
        chance = random.Random(wanted)  # noqa: S311 - a draw that is to be the same again
        seen = 0
        cursor: str | None = None
        while seen < SCANNED_MAX:
            page = await self._runner.run(
                opened.shard.scroll, where, limit=PAGE, cursor=cursor, with_vector=False
            )
            for record in page.records:
                seen += 1
                if len(drawn) < wanted:
                    drawn.append(record.id)
                elif (place := chance.randrange(seen)) < wanted:
                    drawn[place] = record.id
            cursor = page.cursor
            if cursor is None:
                break
        return drawn

    async def _questions(self, opened: Opened, ids: Sequence[PointId]) -> dict[PointId, Sequence[float]]:
        """A vector to ask for near each of these points, each leaning towards the next one.

        A point's own vector would be too easy: the graph was built by finding its neighbours.
        """
        found = []
        for start in range(0, len(ids), AT_ONCE):
            chunk = ids[start : start + AT_ONCE]
            found += await self._runner.run(opened.shard.get, chunk, with_vector=True)
        return {
            record.id: [
                (1 - LEAN) * own + LEAN * further
                for own, further in zip(record.vector, found[number - 1].vector, strict=True)
            ]
            for number, record in enumerate(found)
        }

    async def _timed(
        self, opened: Opened, queries: Sequence[Query], where: Where, concurrency: int
    ) -> tuple[list[list[Scored]], Timing]:
        """The hits of each query, and the times as they were in the store."""
        found: list[list[Scored]] = [[] for _ in queries]
        times_s: list[float] = []
        left = iter(range(len(queries)))

        def ask(number: int) -> float:
            started = time.perf_counter()
            found[number] = opened.shard.search(queries[number], where)
            return time.perf_counter() - started

        async def caller() -> None:
            for number in left:
                times_s.append(await self._runner.run(ask, number))  # noqa: PERF401 - callers share it

        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(caller())
        seconds = time.perf_counter() - started
        times_s.sort()
        return found, Timing(
            p50_ms=_ms(times_s, 0.50),
            p95_ms=_ms(times_s, 0.95),
            p99_ms=_ms(times_s, 0.99),
            mean_ms=round(statistics.fmean(times_s) * 1000, 3),
            queries_per_s=round(len(times_s) / seconds, 1),
        )


def _ms(times_s: Sequence[float], share: float) -> float:
    """The time that `share` of them do not exceed. They are in order, and there is one at least."""
    return round(times_s[min(len(times_s) - 1, int(share * len(times_s)))] * 1000, 3)


def _recall(
    ids: Sequence[PointId], found: Sequence[list[Scored]], truth: Sequence[list[Scored]], k: int
) -> float:
    """The share of the true nearest that were found. The point that a query leans on counts not."""
    hits = wanted = 0
    for own, there, true in zip(ids, found, truth, strict=True):
        nearest = set([hit.record.id for hit in true if hit.record.id != own][:k])
        hits += len(nearest & {hit.record.id for hit in there})
        wanted += len(nearest)
    return round(hits / wanted, 6) if wanted else 1.0


def _best(settings: Sequence[BenchmarkedSetting], target: float | None) -> BenchmarkedSetting | None:
    """The fastest that finds enough; None where none does, or where nobody said what is enough."""
    if target is None:
        return None
    enough = [setting for setting in settings if setting.recall >= target]
    return min(enough, key=lambda setting: setting.mean_ms, default=None)


def _rss_bytes(opened: Opened) -> int | None:
    """Memory of the process that holds the shard, where the system tells."""
    pid = getattr(opened.shard, "pid", os.getpid())
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
