"""How much of the truth real searches find: a share of them is run again, exactly, in the background."""

import contextlib
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import structlog

from services.errors import PlatformError
from services.tasks import TaskSet
from vectord.backends import Query, Scored, Where
from vectord.engine.metrics import Metrics
from vectord.engine.opened import Opened
from vectord.engine.runner import Runner

log = structlog.get_logger(__name__)

DEPTH: Final = 10
WINDOW: Final = 256
"""Samples that the published figure is the mean of, at most."""
TIE: Final = 1e-6
"""Scores this near count as equal: the two ways sum in different orders."""


class Recall:
    """Samples searches and measures them, one at a time: an exact search reads every vector there is."""

    def __init__(
        self,
        *,
        share: float,
        interval_s: float,
        runner: Runner,
        metrics: Metrics,
        tasks: TaskSet,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`share` of the searches are drawn; two measurements start at least `interval_s` apart."""
        self._share = share
        self._interval_s = interval_s
        self._runner = runner
        self._metrics = metrics
        self._tasks = tasks
        self._draw = draw
        self._busy = False
        self._next_at = 0.0
        self._windows: dict[str, deque[float]] = {}

    def offer(self, opened: Opened, query: Query, where: Where) -> None:
        """Perhaps measure this dense search. Returns at once; call it while the collection is in use."""
        if query.vector is None or query.exact or self._draw() >= self._share:
            return
        if self._busy or time.monotonic() < self._next_at:
            self._metrics.recall_samples.labels("skipped").inc()
            return
        self._busy = True
        self._next_at = time.monotonic() + self._interval_s
        held = contextlib.ExitStack()
        held.enter_context(opened.in_use())
        self._tasks.start(self._measure(held, opened, query, where), name="recall")

    async def _measure(self, held: contextlib.ExitStack, opened: Opened, query: Query, where: Where) -> None:
        asked = replace(query, limit=DEPTH, with_vector=False)
        try:
            with held:
                found = await self._runner.run(opened.shard.search, asked, where)
                truth = await self._runner.run(opened.shard.search, replace(asked, exact=True), where)
        except PlatformError as error:
            log.warning("recall not measured", collection=opened.name, reason=error.code)
            return
        finally:
            self._busy = False
        if not truth:
            return
        window = self._windows.setdefault(opened.name, deque(maxlen=WINDOW))
        window.append(recall_of(found, truth))
        self._metrics.recall.labels(opened.name).set(sum(window) / len(window))
        self._metrics.recall_samples.labels("measured").inc()

    def forget(self, name: str) -> None:
        """Drop what is known of a collection that is gone."""
        if self._windows.pop(name, None) is not None:
            self._metrics.recall.remove(name)


def recall_of(found: Sequence[Scored], truth: Sequence[Scored]) -> float:
    """The share of the true nearest that were found; one just as near as the last of them is as good."""
    worst = truth[-1].score
    tie = TIE * max(1.0, abs(worst))
    near_enough = sum(hit.score >= worst - tie for hit in found[: len(truth)])
    return near_enough / len(truth)
