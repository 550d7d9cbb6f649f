"""Indexes rebuilt in the background, when enough was written and writing pauses."""

import asyncio
import time
from typing import Final

import structlog

from services.errors import Unavailable
from services.tasks import TaskSet
from vectord.engine.disk import Disk
from vectord.engine.limits import Limits
from vectord.engine.metrics import Metrics
from vectord.engine.opened import Opened
from vectord.engine.runner import Runner

log = structlog.get_logger(__name__)

SETTLE_S: Final = 0.5
SETTLE_FACTOR: Final = 20
"""So many times the points after which an index is due are written, at most, before it is made."""


class Upkeep:
    def __init__(
        self, disk: Disk, *, runner: Runner, limits: Limits, metrics: Metrics, tasks: TaskSet
    ) -> None:
        self._disk = disk
        self._runner = runner
        self._limits = limits
        self._metrics = metrics
        self._tasks = tasks

    def wrote(self, opened: Opened, points: int) -> None:
        """Count writes, and have the index rebuilt when there were enough since the last time."""
        opened.written += points
        opened.commits += 1
        if self._is_due(opened) and not opened.optimizing:
            opened.optimizing = True
            self._tasks.start(self._optimize(opened), name="optimize")

    def _is_due(self, opened: Opened) -> bool:
        # Every write to a Lance dataset is a commit, with files of its own.
        many = opened.manifest.engine == "lance" and opened.commits >= self._limits.optimize_after_commits
        return many or opened.written >= self._limits.optimize_after_points

    async def _settled(self, opened: Opened) -> None:
        """Return when writing pauses: an index made in the midst of a load would be made again at its end.

        A load without end is not waited for either, nor one that writes over points: what it replaced takes
        memory until then.
        """
        enough = self._limits.optimize_after_points
        commits = -1
        while commits != opened.commits and opened.written < SETTLE_FACTOR * enough:
            commits = opened.commits
            await asyncio.sleep(SETTLE_S)
            points = (await self._runner.run(opened.shard.info)).points
            if opened.written >= points + enough:
                return

    async def _optimize(self, opened: Opened) -> None:
        try:
            while self._is_due(opened):
                await self._settled(opened)
                if opened.deleted:
                    return
                await self._optimize_once(opened)
        finally:
            opened.optimizing = False

    async def _optimize_once(self, opened: Opened) -> None:
        with opened.in_use():
            try:  # a rebuild works on a copy
                self._disk.check_free(await self._runner.run(self._disk.bytes_of, opened.name))
            except Unavailable as error:
                log.warning("index not rebuilt", collection=opened.name, reason=error.message)
                opened.written = opened.commits = 0  # it is tried again after as many writes
                return
            written, commits, started = opened.written, opened.commits, time.perf_counter()
            await self._runner.run(opened.shard.optimize)
            opened.written -= written
            opened.commits -= commits
            seconds = time.perf_counter() - started
            opened.built_s = round(seconds, 3)
            self._metrics.optimize_seconds.observe(seconds)
            log.info("index rebuilt", collection=opened.name, duration_ms=round(seconds * 1000, 1))
