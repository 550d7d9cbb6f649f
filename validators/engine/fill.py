"""The kind `fill`: workers proposed for an order, checked against the roster."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice, takewhile
from threading import Lock
from typing import Final

from pydantic import JsonValue

from schemas.artifacts import FillProposal
from schemas.base import JsonObject
from schemas.verdicts import FillContext
from validators.backends import Roster, WorkerFacts
from validators.engine import codes
from validators.engine.eligibility import Eligibility, Obstacle, Order, OrderReader
from validators.engine.findings import Report, check_shape, pointer
from validators.engine.names import NameMatcher, Person
from validators.engine.policy import Policy
from validators.engine.text import mask, words
from validators.engine.validator import Checked, RosterNeeded, parse_context

NEAREST_OF: Final = 16
"""Free workers among whom the nearest is looked for."""

NAMED_MAX: Final = 500
DIRECTORIES_MAX: Final = 64
"""Workers of one role and place who are found by name, and places and roles for which they are kept."""


@dataclass(slots=True)
class _Entry:
    """One proposed fill: as written, as far as it could be read, who it is, and what stands against it."""

    index: int
    written: JsonValue
    worker_id: str | None
    name: str | None
    worker: WorkerFacts | None = None
    obstacles: list[Obstacle] = field(default_factory=list)
    wrong_name: bool = False

    @property
    def faulty(self) -> bool:
        return bool(self.obstacles) or self.worker_id is None


class FillValidator:
    """Every rule on every fill; the fixes name workers of the order's role and place who pass them all."""

    kind: Final = "fill"
    version: Final = "1.1"
    codes: Final = codes.FILL
    slow: Final = False

    def __init__(self, policy: Policy, *, candidates_max: int) -> None:
        self._policy = policy
        self._names = NameMatcher(policy.nicknames)
        self._orders = OrderReader(policy)
        self._directory = _Directory(candidates_max)

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
        order = self._orders.read(asked.order)
        for name in order.untimed:
            message = (
                f"the order's `{name}` is not an ISO 8601 time with an offset (2026-11-02T06:00:00-05:00)"
            )
            report.add("schema.invalid", "", message, evidence={"context": f"/order/{name}"})
        self._check_order_id(artifact, order, report)
        entries = _read(artifact)
        if entries is not None:
            eligibility = Eligibility(order, self._policy)
            self._judge(entries, workers, eligibility)
            if len(entries) != asked.order.count or any(e.obstacles or e.wrong_name for e in entries):
                pool = _Pool(order, eligibility, workers, entries, self._directory)
                self._report(entries, asked.order.count, pool, report)
        return Checked(report.sorted(), parts=len(entries or ()), roster=workers, as_of=asked.as_of)

    def _check_order_id(self, artifact: JsonValue, order: Order, report: Report) -> None:
        written = artifact.get("order_id") if isinstance(artifact, dict) else None
        if isinstance(written, str) and written != order.order_id:
            fix: JsonObject = {"op": "replace", "path": "/order_id", "value": order.order_id}
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
            worker = entry.worker = roster.find(entry.worker_id)
            if worker is None:
                entry.obstacles.append(
                    Obstacle("fill.worker_unknown", "no worker on the roster has this id", {"row": None})
                )
                continue
            entry.obstacles.extend(eligibility.obstacles(worker))
            entry.wrong_name = not (
                entry.name is None
                or entry.name == worker.name
                or self._names.matches(entry.name, Person.of(worker.first_name, worker.last_name))
            )

    def _report(self, entries: list[_Entry], count: int, pool: "_Pool", report: Report) -> None:
        plan = _Plan(entries, count, pool)
        for entry in entries:
            fix = plan.fix(entry)
            for obstacle in entry.obstacles:
                path = pointer("fills", entry.index, "worker_id")
                report.add(obstacle.code, path, obstacle.message, fix=fix, evidence=obstacle.evidence)
            if entry.wrong_name and (worker := entry.worker) is not None:
                report.add(
                    "fill.name_mismatch",
                    pointer("fills", entry.index, "name"),
                    "the name is not that of the worker with this id",
                    fix=fix,
                    evidence={"row": worker.row, "name": mask(worker.name)},
                )
        if (proposed := len(entries)) != count:
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
    """Workers who could take the order and are not proposed for it, looked up as fixes want them."""

    def __init__(
        self,
        order: Order,
        eligibility: Eligibility,
        roster: Roster,
        entries: list[_Entry],
        directory: "_Directory",
    ) -> None:
        self._order = order
        self._eligibility = eligibility
        self._roster = roster
        self._taken = {entry.worker_id for entry in entries}
        self._directory = directory
        self._spare: dict[str, WorkerFacts] = {}

    @cached_property
    def _free(self) -> Iterator[WorkerFacts]:
        """In the file's order, each once. Nobody without a shift: who is free then is not known."""
        if self._order.shift is not None:
            candidates = self._roster.candidates(self._order.role, self._order.place)
            for worker in islice(candidates, self._directory.looked_at_max):
                if self._fits(worker):
                    yield worker

    def _fits(self, worker: WorkerFacts) -> bool:
        return worker.worker_id not in self._taken and not self._eligibility.obstacles(worker)

    @property
    def most(self) -> int:
        return self._directory.looked_at_max

    def take(self, instead_of: WorkerFacts | None = None) -> JsonObject | None:
        """A free worker, as a fill; nobody is given twice.

        Of the first few, the one who lives nearest to the worker who falls out, as far as ZIP codes tell.
        """
        wanted = 1 if instead_of is None else NEAREST_OF
        while len(self._spare) < wanted and (worker := next(self._free, None)) is not None:
            self._spare[worker.worker_id] = worker
        if not self._spare:
            return None
        if instead_of is None:
            return self._give(next(iter(self._spare.values())))
        return self._give(max(self._spare.values(), key=lambda worker: _shared(worker.zip, instead_of.zip)))

    def take_named(self, name: str | None) -> JsonObject | None:
        """The free worker who bears this name, if there is exactly one."""
        if not name or self._order.shift is None:
            return None
        ids = self._directory.named(self._roster, self._order, name)
        found = [worker for id_ in ids if (worker := self._roster.find(id_)) and self._fits(worker)]
        return self._give(found[0]) if len(found) == 1 else None

    def _give(self, worker: WorkerFacts) -> JsonObject:
        self._taken.add(worker.worker_id)
        self._spare.pop(worker.worker_id, None)
        return {"worker_id": worker.worker_id, "name": worker.name}


class _Directory:
    """Workers of a role and a place by their names; the last few directories are kept."""

    def __init__(self, looked_at_max: int) -> None:
        self.looked_at_max = looked_at_max
        self._kept: dict[tuple[str, str, str], dict[str, tuple[str, ...]]] = {}
        self._lock = Lock()

    def named(self, roster: Roster, order: Order, name: str) -> tuple[str, ...]:
        """The ids of all who bear this name, whatever its accents, case and order of words."""
        key = (roster.info.sha256, order.role, order.place)
        with self._lock:  # checks of long artifacts run in threads
            names = self._kept.get(key)
        if names is None:
            names = self._read(roster, order)
            with self._lock:
                if len(self._kept) >= DIRECTORIES_MAX:
                    self._kept.pop(next(iter(self._kept)))
                self._kept[key] = names
        return names.get(_key(name), ())

    def _read(self, roster: Roster, order: Order) -> dict[str, tuple[str, ...]]:
        names: dict[str, tuple[str, ...]] = {}
        for worker in islice(roster.candidates(order.role, order.place), min(NAMED_MAX, self.looked_at_max)):
            key = _key(worker.name)
            names[key] = (*names.get(key, ()), worker.worker_id)
        return names


def _key(name: str) -> str:
    return " ".join(sorted(words(name)))


def _shared(one: str, other: str) -> int:
    """How many leading characters two ZIP codes share."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


class _Plan:
    """One mended proposal, of which each fix is a step.

    Fixes are applied from the last finding to the first: fills are replaced in place before the one
    on `/fills` moves them.
    """

    def __init__(self, entries: list[_Entry], count: int, pool: _Pool) -> None:
        self._entries = entries
        self._missing = max(0, count - len(entries))
        by_need = sorted(entries, key=lambda entry: (entry.faulty, entry.wrong_name, entry.index))
        self._removed = {entry.index for entry in by_need[count:]}
        self._replaced: dict[int, JsonObject] = {}
        self._choose(pool)
        self._added: list[JsonObject] = []
        if self._missing <= pool.most:
            while len(self._added) < self._missing and (fill := pool.take()) is not None:
                self._added.append(fill)

    def _choose(self, pool: _Pool) -> None:
        wanting = [e for e in self._entries if e.index not in self._removed and (e.obstacles or e.wrong_name)]
        for entry in wanting:  # those who can only have been meant come first
            meant_another = entry.worker is None or entry.wrong_name
            if meant_another and (fill := pool.take_named(entry.name)) is not None:
                self._replaced[entry.index] = fill
        for entry in wanting:
            if entry.index in self._replaced or not entry.obstacles:
                continue
            if (fill := pool.take(entry.worker)) is not None:
                self._replaced[entry.index] = fill

    def fix(self, entry: _Entry) -> JsonObject | None:
        """What mends one fill; None where nobody is free, or the fill is one too many."""
        if (fill := self._replaced.get(entry.index)) is not None:
            return {"op": "replace", "path": pointer("fills", entry.index), "value": fill}
        renamed = entry.wrong_name and not entry.obstacles and entry.index not in self._removed
        if not renamed or entry.worker is None:
            return None
        return {"op": "replace", "path": pointer("fills", entry.index, "name"), "value": entry.worker.name}

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
        renamed = entry.wrong_name and not entry.obstacles
        if renamed and entry.worker is not None and isinstance(entry.written, dict):
            return {**entry.written, "name": entry.worker.name}
        return entry.written
