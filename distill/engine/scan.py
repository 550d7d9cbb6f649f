"""The first reading of a part: each line checked once, and its keys noted for the joins."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import ValidationError

from distill.engine import inputs, intake, partindex
from distill.engine.assemble import evidence_of
from distill.engine.identity import id_of_turn
from distill.engine.inputs import Part, RawLine
from distill.engine.partindex import TABLES, Bad, Key, halves, key_of
from distill.engine.sources import OWN, READERS, Turn, Unreadable
from distill.engine.times import moment
from schemas.evidence import Evidence
from schemas.review import Review
from schemas.runs import VerdictRecord
from services.errors import InvalidRequest

NO_ID: Final = bytes(32)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ScanTask:
    """`known` is the sha256 of the part's bytes where they cannot have changed since it was taken."""

    part: Part
    folder: Path
    line_bytes_max: int
    depth_max: int
    known: str | None = None

    def index(self, digest: str) -> Path:
        """Where the index of a part of this content lies."""
        return self.folder / f"{self.part.name}-{digest[:16]}.idx"

    def is_done(self) -> bool:
        return self.known is not None and self.index(self.known).exists()


@dataclass(frozen=True, slots=True)
class Scanned:
    """A part with an index, which is named by the hash of its bytes."""

    part: Part
    sha256: str
    index: Path
    lines: int


def scan(task: ScanTask) -> Scanned:
    """Make sure that the part has an index."""
    digest = task.known or inputs.digest(task.part).hex()
    path = task.index(digest)
    if not path.exists():
        reader = Reader(task.part.kind, task.depth_max)
        for line in inputs.lines(task.part, task.line_bytes_max):
            reader.take(line)
        partindex.write(path, reader.tables(), reader.bad)
    return Scanned(task.part, digest, path, partindex.PartIndex(path).count("rows"))


@dataclass(slots=True)
class Reader:
    """Reads lines of one source. `rows` and the tables grow with each."""

    kind: str
    depth_max: int
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    runs: list[tuple[Any, ...]] = field(default_factory=list)
    run_notes: list[tuple[Any, ...]] = field(default_factory=list)
    episode_notes: list[tuple[Any, ...]] = field(default_factory=list)
    reviews: list[tuple[Any, ...]] = field(default_factory=list)
    attempts: list[tuple[Any, ...]] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)

    def take(self, line: RawLine) -> None:
        row = len(self.rows)
        evidence_id, kind = NO_ID, partindex.BAD
        try:
            found = parsed(self.kind, line, self.depth_max)
            if isinstance(found, Turn):
                evidence_id, kind = self._take_turn(found, line, row), partindex.IS_RUN
            else:
                self._take_note(found, line, row)
                kind = partindex.IS_NOTE
        except Unreadable as problem:
            self.bad.append(Bad(row, problem.code, problem.detail))
        self.rows.append((line.offset, line.length, kind, evidence_id, line.sha256))

    def tables(self) -> dict[str, partindex.Table]:
        return {name: np.array(getattr(self, name), kind) for name, kind in TABLES.items()}

    def _take_turn(self, turn: Turn, line: RawLine, row: int) -> bytes:
        evidence_id = _checked_id(self.kind, turn)
        own = key_of(self.kind, "run", turn.key)
        # Our own lines are canonical: of one id, other bytes are another run. Elsewhere, the content says it.
        digest = halves(line.sha256 if self.kind == OWN else evidence_id)
        self.runs.append((*own, *digest, row))
        if turn.episode_id is not None:
            self.attempts.append(self._attempt(turn, turn.episode_id, own, row, evidence_id))
        return evidence_id

    def _attempt(self, turn: Turn, episode: str, own: Key, row: int, evidence_id: bytes) -> tuple[Any, ...]:
        task = key_of("task", turn.task["kind"], turn.task["key"] or "\0")[0] | 1 if turn.task else 0
        repairs = key_of(self.kind, "run", turn.repairs) if turn.repairs is not None else (0, 0)
        name = halves(turn.key.encode("utf-8", "replace")[:16].ljust(16, b"\0"))
        return (
            *key_of(self.kind, "episode", episode),
            task,
            moment(turn.ts) if turn.ts else 0,
            *name,
            *own,
            *repairs,
            turn.repairs is not None,
            verdict_code(turn.verdict),
            row,
            evidence_id,
        )

    def _take_note(self, record: Json, line: RawLine, row: int) -> None:
        rest = (*halves(line.sha256), moment(record["ts"]), line.offset, line.length, row)
        if record["schema"] == Review.schema_id:
            about = halves(bytes.fromhex(record["evidence_id"]))
            self.reviews.append((*about, *rest, partindex.REVIEW, partindex.NO_VERDICT))
            return
        what, verdict = partindex.FEEDBACK, partindex.NO_VERDICT
        if record["schema"] == VerdictRecord.schema_id:
            what, verdict = partindex.VERDICT, verdict_code(record["verdict"])
        if (run_id := record.get("run_id")) is not None:
            self.run_notes.append((*key_of(self.kind, "run", run_id), *rest, what, verdict))
        elif (episode_id := record.get("episode_id")) is not None:
            self.episode_notes.append((*key_of(self.kind, "episode", episode_id), *rest, what, verdict))
        else:
            raise Unreadable("schema_invalid", "it names neither a run nor an episode")


def parsed(kind: str, line: RawLine, depth_max: int) -> Turn | Json:
    """What a line holds. Raises `Unreadable`."""
    if line.data is None:
        raise Unreadable("line.too_long", f"the line has {line.length} bytes")
    try:
        row = intake.loads(line.data)
    except InvalidRequest as error:
        torn = not line.data.endswith(b"\n")
        raise Unreadable("line.torn" if torn else f"line.{error.code}", error.message) from None
    if not isinstance(row, dict):
        raise Unreadable("line.not_an_object", "the line is JSON, and no object")
    if intake.may_be_deeper(line.data, depth_max):
        try:
            intake.check_depth(row, depth_max)
        except InvalidRequest as error:
            raise Unreadable("line.too_deep", error.message) from None
    return READERS[kind](row)


def _checked_id(kind: str, turn: Turn) -> bytes:
    """The evidence's id. What did not pass our own schema yet has to make evidence that passes its schema."""
    try:
        evidence_id = id_of_turn(kind, turn)
    except ValueError:
        raise Unreadable("line.number_out_of_range", "a number has no form that all readers share") from None
    if kind != OWN:
        source = {"kind": kind, "key": turn.key, "segment": "", "offset": 0, "length": 0}
        try:
            Evidence.model_validate(evidence_of(turn, evidence_id, {**source, "line_sha256": evidence_id}))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise Unreadable("record.invalid", f"`{where}`: {first['msg']}") from None
    return bytes.fromhex(evidence_id)


def verdict_code(verdict: Json | None) -> int:
    if verdict is None:
        return partindex.NO_VERDICT
    return partindex.ACCEPTED if verdict["verdict"] == "accepted" else partindex.OTHER_VERDICT
