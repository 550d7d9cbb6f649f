"""The kind `fill`: workers proposed for an order, checked against the roster."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from pydantic import JsonValue

from schemas.artifacts import FillProposal
from schemas.base import JsonObject
from schemas.verdicts import FillContext
from validators.backends import Roster, WorkerFacts
from validators.engine import codes
from validators.engine.eligibility import Eligibility, Obstacle, Order
from validators.engine.findings import Report, check_shape, pointer
from validators.engine.names import NameMatcher, Person
from validators.engine.policy import Policy
from validators.engine.text import mask, words
from validators.engine.validator import Checked, RosterNeeded, parse_context


@dataclass(slots=True)
class _Entry:
    """One proposed fill: as written, as far as it could be read, and what stands against it."""

    index: int
    written: JsonValue
    worker_id: str | None
    name: str | None
    obstacles: list[Obstacle] = field(default_factory=list)
    wrong_name: WorkerFacts | None = None

    @property
    def faulty(self) -> bool:
        return bool(self.obstacles) or self.worker_id is None


class FillValidator:
    """Every rule on every fill; the fixes name workers of the order's role and place who pass them all."""

    kind: Final = "fill"
    version: Final = "1.0"
    codes: Final = codes.FILL
    slow: Final = False

    def __init__(self, policy: Policy, *, candidates_max: int) -> None:
        self._policy = policy
        self._names = NameMatcher(policy.nicknames)
        self._candidates_max = candidates_max

    def artifact_schema(self) -> JsonObject:
        return FillProposal.model_json_schema()

    def context_schema(self) -> JsonObject:
        return FillContext.model_json_schema()

    def unreadable(self, reason: str) -> Checked:
        report = Report(self._policy.severities)
        report.add("schema.invalid", "", reason)
        return Checked(report.sorted())

    def check(self, artifact: JsonValue, context: JsonObject, roster: RosterNeeded) -> Checked:
        """Raises `InvalidRequest` for a bad context and `Unavailable` without a roster."""
        asked = parse_context(FillContext, context)
        workers = roster()
        report = Report(self._policy.severities)
        check_shape(FillProposal, artifact, report)
        order = Order.of(asked.order, self._policy, report)
        self._check_order_id(artifact, order, report)
        entries = _read(artifact)
        if entries is not None:
            eligibility = Eligibility(order, self._policy)
            self._judge(entries, workers, eligibility)
            pool = _Pool(order, eligibility, workers, entries, looked_at_max=self._candidates_max)
            self._report(entries, order, pool, report)
        return Checked(report.sorted(), parts=len(entries or ()), roster=workers, as_of=asked.as_of)

    def _check_order_id(self, artifact: JsonValue, order: Order, report: Report) -> None:
        written = artifact.get("order_id") if isinstance(artifact, dict) else None
        if isinstance(written, str) and written != order.asked.order_id:
            fix: JsonObject = {"op": "replace", "path": "/order_id", "value": order.asked.order_id}
            report.add("fill.order_mismatch", "/order_id", "the proposal is for another order", fix=fix)

    def _judge(self, entries: list[_Entry], roster: Roster, eligibility: Eligibility) -> None:
        first: dict[str, int] = {}
        for entry in entries:
            if entry.worker_id is None:
                continue
            before = first.setdefault(entry.worker_id, entry.index)
            if before != entry.index:
                evidence: JsonObject = {"first": pointer("fills", before)}
                entry.obstacles.append(
                    Obstacle("fill.duplicate_worker", "the worker is proposed already", evidence)
                )
            worker = roster.find(entry.worker_id)
            if worker is None:
                entry.obstacles.append(
                    Obstacle("fill.worker_unknown", "no worker on the roster has this id", {"row": None})
                )
                continue
            entry.obstacles.extend(eligibility.obstacles(worker))
            person = Person.of(worker.first_name, worker.last_name)
            if entry.name is not None and not self._names.matches(entry.name, person):
                entry.wrong_name = worker

    def _report(self, entries: list[_Entry], order: Order, pool: "_Pool", report: Report) -> None:
        plan = _Plan(entries, order.asked.count, pool)
        for entry in entries:
            fix = plan.fix(entry)
            for obstacle in entry.obstacles:
                path = pointer("fills", entry.index, "worker_id")
                report.add(obstacle.code, path, obstacle.message, fix=fix, evidence=obstacle.evidence)
            if (worker := entry.wrong_name) is not None:
                report.add(
                    "fill.name_mismatch",
                    pointer("fills", entry.index, "name"),
                    "the name is not that of the worker with this id",
                    fix=fix,
                    evidence={"row": worker.row, "name": mask(worker.name)},
                )
        proposed, count = len(entries), order.asked.count
        if proposed != count:
            code = "fill.count_short" if proposed < count else "fill.count_over"
            message = f"{proposed} workers are proposed; the order asks for {count}"
            evidence: JsonObject = {"proposed": proposed, "count": count}
            report.add(code, "/fills", message, fix=plan.count_fix(), evidence=evidence)


def _read(artifact: JsonValue) -> list[_Entry] | None:
    """The fills as far as they can be read; None where there is no list of them."""
    fills = artifact.get("fills") if isinstance(artifact, dict) else None
    if not isinstance(fills, list):
        return None
    entries = []
    for index, written in enumerate(fills):
        fields = written if isinstance(written, dict) else {}
        worker_id, name = fields.get("worker_id"), fields.get("name")
        entries.append(
            _Entry(
                index,
                written,
                worker_id if isinstance(worker_id, str) else None,
                name if isinstance(name, str) else None,
            )
        )
    return entries


class _Pool:
    """Workers who could take the order and are not proposed for it. Looked up only when a fix is wanted."""

    def __init__(
        self,
        order: Order,
        eligibility: Eligibility,
        roster: Roster,
        entries: list[_Entry],
        *,
        looked_at_max: int,
    ) -> None:
        self._order = order
        self._eligibility = eligibility
        self._roster = roster
        self._proposed = {entry.worker_id for entry in entries}
        self._looked_at_max = looked_at_max

    @cached_property
    def _free(self) -> dict[str, WorkerFacts]:
        free: dict[str, WorkerFacts] = {}
        if self._order.shift is None:
            return free  # without a shift nobody is known to be free
        candidates = self._roster.candidates(self._order.role, self._order.place)
        for worker, _ in zip(candidates, range(self._looked_at_max), strict=False):
            taken = worker.worker_id in self._proposed
            if not taken and next(self._eligibility.obstacles(worker), None) is None:
                free[worker.worker_id] = worker
        return free

    @cached_property
    def _by_name(self) -> dict[tuple[str, ...], str]:
        """Ids by name, for names that one worker alone bears."""
        names: dict[tuple[str, ...], str] = {}
        shared: set[tuple[str, ...]] = set()
        for worker in self._free.values():
            key = tuple(sorted(words(worker.name)))
            if key in names:
                shared.add(key)
            names[key] = worker.worker_id
        return {key: worker_id for key, worker_id in names.items() if key not in shared}

    def take(self) -> JsonObject | None:
        """The next free worker, as a fill; nobody is given twice."""
        worker_id = next(iter(self._free), None)
        return None if worker_id is None else self._give(worker_id)

    def take_named(self, name: str | None) -> JsonObject | None:
        """The free worker who bears this name, if there is exactly one."""
        worker_id = self._by_name.get(tuple(sorted(words(name)))) if name else None
        return self._give(worker_id) if worker_id in self._free else None

    def _give(self, worker_id: str | None) -> JsonObject:
        assert worker_id is not None
        return {"worker_id": worker_id, "name": self._free.pop(worker_id).name}


class _Plan:
    """One mended proposal, of which each fix is a step.

    Fixes are applied from the last finding to the first: fills are replaced in place before the one
    on `/fills` moves them.
    """

    def __init__(self, entries: list[_Entry], count: int, pool: _Pool) -> None:
        self._entries = entries
        self._missing = max(0, count - len(entries))
        by_need = sorted(entries, key=lambda entry: (entry.faulty, entry.wrong_name is not None, entry.index))
        self._removed = {entry.index for entry in by_need[count:]}
        self._replaced: dict[int, JsonObject] = {}
        self._choose(pool)
        self._added: list[JsonObject] = []
        while len(self._added) < self._missing and (fill := pool.take()) is not None:
            self._added.append(fill)

    def _choose(self, pool: _Pool) -> None:
        wanting = [e for e in self._entries if e.index not in self._removed and (e.obstacles or e.wrong_name)]
        for entry in wanting:  # those who can only have been meant come first
            if (fill := pool.take_named(entry.name)) is not None:
                self._replaced[entry.index] = fill
        for entry in wanting:
            if entry.index in self._replaced or not entry.obstacles:
                continue
            if (fill := pool.take()) is not None:
                self._replaced[entry.index] = fill

    def fix(self, entry: _Entry) -> JsonObject | None:
        """What mends one fill; None where nobody is free, or the fill is one too many."""
        if (fill := self._replaced.get(entry.index)) is not None:
            return {"op": "replace", "path": pointer("fills", entry.index), "value": fill}
        if entry.index in self._removed or entry.wrong_name is None or entry.obstacles:
            return None
        return {
            "op": "replace",
            "path": pointer("fills", entry.index, "name"),
            "value": entry.wrong_name.name,
        }

    def count_fix(self) -> JsonObject | None:
        """What brings the number of fills to the order's; None where too few workers are free."""
        if len(self._added) < self._missing:
            return None
        if len(self._added) == 1:
            return {"op": "add", "path": "/fills/-", "value": self._added[0]}
        if len(self._removed) == 1:
            return {"op": "remove", "path": pointer("fills", *self._removed)}
        kept: list[JsonValue] = [self._mended(e) for e in self._entries if e.index not in self._removed]
        return {"op": "replace", "path": "/fills", "value": [*kept, *self._added]}

    def _mended(self, entry: _Entry) -> JsonValue:
        if (fill := self._replaced.get(entry.index)) is not None:
            return fill
        if entry.wrong_name is not None and isinstance(entry.written, dict) and not entry.obstacles:
            return {**entry.written, "name": entry.wrong_name.name}
        return entry.written
