"""Materialize: the log becomes evidence, each run joined with its verdict, its feedback and what it repaired.

A pure function of the log: no clock and no chance in it, and the product is sorted by id, so the same log
gives the same bytes. Memory holds about a kilobyte a run, never the texts.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import ValidationError

from distill.engine.identity import SOURCE_KIND, evidence_id_of, input_of, role_of
from distill.engine.index import Location, Owner, digest_of, owner_of
from distill.engine.log import Log, SegmentView, lines_of
from distill.engine.products import EVIDENCE, QUARANTINE, ProductWriter
from distill.engine.progress import Progress
from schemas.evidence import Evidence, EvidenceFeedback, ProductFile, Quarantined, Source
from schemas.records import Record
from schemas.runs import Feedback, Run, VerdictRecord
from schemas.verdicts import Verdict

READ_SHARE: Final = 0.5
"""How much of the work the first pass is, for the progress shown."""

READERS: Final[dict[str, type[Record]]] = {kind.schema_id: kind for kind in (Run, VerdictRecord, Feedback)}


@dataclass(frozen=True, slots=True)
class Materialized:
    """`counts["in"]` is every line of the log, and the sum of the other counts."""

    products: list[ProductFile]
    counts: dict[str, int]


_TaskKey = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A run's place in its episode. `when` orders attempts: by time, then by id."""

    episode_id: str
    task: _TaskKey | None
    when: tuple[datetime, str]
    verdict: str | None
    repairs: str | None


@dataclass(slots=True)
class _Seen:
    """What is kept of a run between the passes, packed, since there is one for each."""

    run_id: str
    id_bytes: bytes
    packed: bytes
    attempt: _Attempt | None
    repaired: "_Seen | None" = None

    @property
    def location(self) -> Location:
        return Location.unpack(self.packed)

    @property
    def evidence_id(self) -> str:
        return self.id_bytes.hex()


@dataclass(slots=True)
class _Notes:
    """Verdicts and feedback on one run or episode."""

    locations: list[Location] = field(default_factory=list)
    verdict: tuple[datetime, bytes, str] | None = None
    joined: bool = False


def materialize(log: Log, snapshot: list[SegmentView], folder: Path, progress: Progress) -> Materialized:
    """Write `evidence.jsonl` and `quarantine.jsonl` into `folder` from the log as it was at `snapshot`."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProductWriter(folder / QUARANTINE) as quarantine, ProductWriter(folder / EVIDENCE) as evidence:
        reading = _Reading(quarantine)
        reading.read(snapshot, progress)
        reading.link()
        joining = _Joining(log, reading.notes)
        for done, seen in enumerate(reading.in_order()):
            evidence.write(joining.evidence(seen))
            progress.reach(done, len(reading.runs), start=READ_SHARE)
        counts = {
            "in": reading.lines,
            "out": evidence.lines,
            "joined": sum(len(note.locations) for note in reading.notes.values() if note.joined),
            "unmatched": sum(len(note.locations) for note in reading.notes.values() if not note.joined),
            "duplicates": reading.duplicates,
            "quarantined": quarantine.lines,
        }
        assert counts["in"] == sum(counts.values()) - counts["in"], counts
        return Materialized([evidence.finish(), quarantine.finish()], counts)


class _Reading:
    """The first pass: what there is, what is there twice, and what cannot be read."""

    def __init__(self, quarantine: ProductWriter) -> None:
        self.runs: dict[str, _Seen] = {}
        self.notes: defaultdict[str, _Notes] = defaultdict(_Notes)
        self.lines = 0
        self.duplicates = 0
        self._quarantine = quarantine

    def read(self, snapshot: list[SegmentView], progress: Progress) -> None:
        total, behind = sum(view.end for view in snapshot), 0
        for view in snapshot:
            for line in lines_of(view):
                self.lines += 1
                location = Location(view.ordinal, line.offset, len(line.data), digest_of(line.data))
                problem = self._take(orjson.loads(line.data), location)
                if problem is not None:
                    self._set_aside(view, location, line.data, *problem)
                behind += len(line.data)
                progress.reach(behind, total, end=READ_SHARE)

    def in_order(self) -> Iterator[_Seen]:
        return iter(sorted(self.runs.values(), key=lambda seen: seen.id_bytes))

    def _take(self, raw: dict[str, Any], location: Location) -> tuple[str, str] | None:
        """File the record; return code and sentence when that cannot be done."""
        kind = READERS.get(raw["schema"])
        if kind is None:
            return "unknown_schema", f"records of schema {raw['schema']!r} are not read here"
        try:
            record = kind.model_validate(raw)
        except ValidationError as error:
            return "schema_invalid", _first_problem(error)
        if isinstance(record, Run):
            return self._take_run(record, location)
        owner = owner_of(raw)
        assert owner is not None  # the schema saw to it
        self._take_note(record, self.notes[owner.key], location)
        return None

    def _take_run(self, run: Run, location: Location) -> tuple[str, str] | None:
        known = self.runs.get(run.run_id)
        if known is None:
            self.runs[run.run_id] = _seen(run, location)
        elif known.location.digest == location.digest:
            self.duplicates += 1
        else:
            return "run_id_conflict", "another run with other content has this `run_id`"
        return None

    def _take_note(self, record: Record, notes: _Notes, location: Location) -> None:
        if any(known.digest == location.digest for known in notes.locations):
            self.duplicates += 1
            return
        notes.locations.append(location)
        if isinstance(record, VerdictRecord):
            latest = (record.ts, location.digest, record.verdict.verdict)
            notes.verdict = max(notes.verdict, latest) if notes.verdict else latest

    def _set_aside(
        self, view: SegmentView, location: Location, data: bytes, reason: str, detail: str
    ) -> None:
        source = _source(f"{view.name}:{location.offset}", view.name, location, data)
        self._quarantine.write(Quarantined(reason=reason, detail=detail, source=source))

    def link(self) -> None:
        """Find out which notes belong to a run, and which failed attempt each attempt repairs."""
        episodes: defaultdict[str, list[tuple[_Seen, _Attempt]]] = defaultdict(list)
        for seen in self.runs.values():
            if seen.attempt is not None:
                episodes[seen.attempt.episode_id].append((seen, seen.attempt))
        for owners in (
            (Owner("run", run_id) for run_id in self.runs),
            (Owner("episode", e) for e in episodes),
        ):
            for owner in owners:
                if (note := self.notes.get(owner.key)) is not None:
                    note.joined = True
        for attempts in episodes.values():
            earlier: defaultdict[_TaskKey | None, dict[str, _Seen]] = defaultdict(dict)
            for seen, attempt in sorted(attempts, key=lambda one: one[1].when):
                seen.repaired = self._repaired(attempt, earlier[attempt.task])
                earlier[attempt.task][seen.run_id] = seen

    def _repaired(self, attempt: _Attempt, earlier: dict[str, _Seen]) -> _Seen | None:
        """The attempt that this one says it repairs, or else the one before it, if that failed.

        `earlier` are the attempts at the same task, oldest first; only they count, so no chain runs in
        circles.
        """
        if attempt.repairs is not None:
            return earlier.get(attempt.repairs)
        if attempt.task is None or not earlier:
            return None
        previous = next(reversed(earlier.values()))
        return previous if self._failed(previous) else None

    def _failed(self, seen: _Seen) -> bool:
        note = self.notes.get(Owner("run", seen.run_id).key)
        own = seen.attempt.verdict if seen.attempt else None
        verdict = note.verdict[2] if note and note.verdict else own
        return verdict is not None and verdict != "accepted"


class _Joining:
    """The second pass: each run read again, and written with what belongs to it."""

    def __init__(self, log: Log, notes: dict[str, _Notes]) -> None:
        self._log = log
        self._notes = notes

    def evidence(self, seen: _Seen) -> Evidence:
        line = self._log.read(seen.location)
        run = Run.model_validate_json(line)
        verdict, feedback = self._said_of(run)
        return Evidence(
            evidence_id=seen.evidence_id,
            source=_source(run.run_id, self._log.source_of(seen.location), seen.location, line),
            episode_id=run.episode_id,
            task=run.task,
            role=role_of(run),
            input=input_of(run),
            output=run.output,
            model=run.model,
            verdict=verdict,
            feedback=feedback,
            repair_of=seen.repaired.evidence_id if seen.repaired else None,
        )

    def _said_of(self, run: Run) -> tuple[Verdict | None, list[EvidenceFeedback]]:
        """The latest verdict, and the feedback in the order of its ids."""
        feedback: list[EvidenceFeedback] = []
        verdicts: list[tuple[datetime, bytes, Verdict]] = []
        owners = [Owner("run", run.run_id)] + ([Owner("episode", run.episode_id)] if run.episode_id else [])
        for owner in owners:
            notes = self._notes.get(owner.key)
            for location in notes.locations if notes else ():
                raw = orjson.loads(self._log.read(location))
                if raw["schema"] == VerdictRecord.schema_id:
                    record = VerdictRecord.model_validate(raw)
                    verdicts.append((record.ts, location.digest, record.verdict))
                else:
                    feedback.append(_joined(Feedback.model_validate(raw), owner))
        latest = max(verdicts, key=lambda one: one[:2])[2] if verdicts else run.verdict
        return latest, sorted(feedback, key=lambda one: one.feedback_id)


def _seen(run: Run, location: Location) -> _Seen:
    return _Seen(run.run_id, bytes.fromhex(evidence_id_of(run)), location.pack(), _attempt(run))


def _attempt(run: Run) -> _Attempt | None:
    if run.episode_id is None:
        return None
    repairs = run.ext.get("repair_of_run_id")
    return _Attempt(
        episode_id=run.episode_id,
        task=(run.task.kind, run.task.key) if run.task else None,
        when=(run.ts, run.run_id),
        verdict=run.verdict.verdict if run.verdict else None,
        repairs=repairs if isinstance(repairs, str) else None,
    )


def _source(key: str, segment: str, location: Location, data: bytes) -> Source:
    return Source(
        kind=SOURCE_KIND,
        key=key,
        segment=segment,
        offset=location.offset,
        length=location.length,
        line_sha256=hashlib.sha256(data).hexdigest(),
    )


def _joined(feedback: Feedback, owner: Owner) -> EvidenceFeedback:
    return EvidenceFeedback(
        feedback_id=feedback.feedback_id,
        ts=feedback.ts,
        scope=owner.scope,
        kind=feedback.kind,
        name=feedback.name,
        value=feedback.value,
        by=feedback.by,
    )


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"`{where}`: {first['msg']}" if where else first["msg"]
