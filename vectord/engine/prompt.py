"""Searches that need no thread and no task: by vector, in a store that offers them.

Whatever is refused, and whatever needs more, is left to the ordinary search; a difference in what the two
find would be a fault.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from schemas.vectors import Filter
from services.errors import PlatformError
from vectord.backends import Done, Found, Query, Rendered, StoreError, Where
from vectord.engine.collections import Collections
from vectord.engine.gate import Limited, Pass, pass_for
from vectord.engine.limits import Limits
from vectord.engine.metrics import Metrics
from vectord.engine.opened import Opened
from vectord.engine.recall import Recall
from vectord.engine.roles import Roles
from vectord.engine.runner import told

log = structlog.get_logger(__name__)

LENGTH_MIN: Final = 1e-3
LENGTH_MAX: Final = 1e3
"""Vectors shorter or longer are made fit first, or refused: by the ordinary search."""


@dataclass(frozen=True, slots=True)
class PromptQuestion:
    """A search by a list of numbers, of which nothing else is known yet."""

    vector: list[float]
    k: int
    filter: Filter | None
    role: str | None
    exact: bool
    score_min: float | None
    parts: frozenset[str]
    ef: int | None


Start = Callable[[Query, Where, frozenset[str], Done], bool]
"""`PromptShard.start_search`."""

PromptDone = Callable[[list[bytes] | PlatformError], None]
"""Given the hits that may be shown, as JSON, best first; or what the caller is told of a failure."""


class PromptSearches:
    def __init__(
        self,
        collections: Collections,
        roles: Callable[[], Roles],
        *,
        limits: Limits,
        metrics: Metrics,
        recall: Recall,
    ) -> None:
        self._collections = collections
        self._roles = roles
        self._limits = limits
        self._metrics = metrics
        self._seconds = metrics.search_seconds.labels("dense")
        self._recall = recall

    def begin(self, name: str, question: PromptQuestion, limited: Limited, done: PromptDone) -> bool:
        """Begin a search. False: it takes the ordinary way. Raises what that way would raise, too."""
        if question.k > self._limits.k_max:
            return False
        with self._collections.use(name) as opened:
            # Asked for by name: to look through a protocol takes as long as all of the rest.
            start: Start | None = getattr(opened.shard, "start_search", None)
            if start is None or not _is_usual(question.vector, opened):
                return False
            gate = pass_for(
                opened,
                self._roles(),
                limited,
                self._limits,
                filter_=question.filter,
                role=question.role,
            )
            visit = _Visit(self, opened, gate, question, done)
            query = Query(question.k, question.vector, exact=question.exact, ef=question.ef or opened.ef)
            if not start(query, gate.where, question.parts, visit.found):
                return False
            visit.hold()
            self._recall.offer(opened, query, gate.where)
            return True

    def checked(self, gate: Pass, hits: list[Rendered]) -> list[Rendered]:
        """The hits that may be shown."""
        if gate.grant is None:
            return hits
        passed = [hit for hit in hits if gate.reason_against_role(hit.role) is None]
        if len(passed) < len(hits):
            self._metrics.leaks.inc(len(hits) - len(passed))
            log.error("gate stopped a leak", collection=gate.collection, hits=len(hits) - len(passed))
        return passed

    def took(self, seconds: float) -> None:
        self._seconds.observe(seconds)


class _Visit:
    """One search under way; it holds the collection."""

    __slots__ = ("_done", "_gate", "_held", "_opened", "_question", "_searches", "_started")

    def __init__(
        self,
        searches: PromptSearches,
        opened: Opened,
        gate: Pass,
        question: PromptQuestion,
        done: PromptDone,
    ) -> None:
        self._searches = searches
        self._opened = opened
        self._gate = gate
        self._question = question
        self._done = done
        self._started = time.perf_counter()
        self._held = opened.in_use()

    def hold(self) -> None:
        self._held.__enter__()

    def found(self, found: Found) -> None:
        self._held.__exit__(None, None, None)
        if isinstance(found, StoreError):
            self._done(told(found))
            return
        self._searches.took(time.perf_counter() - self._started)
        hits = self._searches.checked(self._gate, list(found))
        least = self._question.score_min
        self._done([hit.json for hit in hits if least is None or hit.score >= least])


def _is_usual(vector: list[float], opened: Opened) -> bool:
    """Whether the vector can go to the store as it is."""
    if len(vector) != opened.manifest.dimension or not set(map(type, vector)) <= {float, int}:
        return False
    return LENGTH_MIN < math.hypot(*vector) < LENGTH_MAX
