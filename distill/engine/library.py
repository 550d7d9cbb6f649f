"""Evidence and categories as the stages left them: read in step, or by id."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import orjson

from distill.engine.products import EVIDENCE, SCORED, id_of, line_with, lines_from
from distill.engine.score import scored_of
from schemas.distill import EvidenceItem, EvidencePage
from schemas.evidence import Category, Evidence, EvidenceRef, Scored
from services.errors import Conflict

CHAIN_MAX: Final = 64
"""Attempts that one repaired answer may go back over."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A piece of evidence and its category."""

    evidence: Evidence
    scored: Scored

    @property
    def id(self) -> str:
        return self.evidence.evidence_id

    @property
    def ref(self) -> EvidenceRef:
        return EvidenceRef(evidence_id=self.id, source=self.evidence.source)


class Item:
    """One piece of evidence with its category: the lines as they lie on the disk, parsed when asked for."""

    def __init__(self, evidence_line: bytes, scored_line: bytes) -> None:
        self.evidence_line = evidence_line
        self.scored_line = scored_line

    @cached_property
    def evidence(self) -> dict[str, Any]:
        """`stillhouse.evidence` as JSON; `schemas.evidence.Evidence` says what is in it."""
        parsed: dict[str, Any] = orjson.loads(self.evidence_line)
        return parsed

    @cached_property
    def scored(self) -> dict[str, Any]:
        """`stillhouse.scored` as JSON."""
        parsed: dict[str, Any] = orjson.loads(self.scored_line)
        return parsed

    @property
    def id(self) -> str:
        return id_of(self.evidence_line)

    @property
    def category(self) -> Category:
        category: Category = self.scored["category"]
        return category

    @property
    def reasons(self) -> list[str]:
        reasons: list[str] = self.scored["reasons"]
        return reasons


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of the evidence that is worked on by itself: some thousand pieces, sorted by id.

    `name` is the same for the same place in the log, and sorts as the log does.
    """

    name: str
    evidence: Path
    scored: Path
    lines: int
    bytes: int

    def read(self) -> Iterator[Item]:
        """What is in it, in the order of ids. Raises `Conflict` when score is behind."""
        scored = lines_from(self.scored)
        for line in lines_from(self.evidence):
            other = next(scored, None)
            if other is None or id_of(other) != id_of(line):
                raise _stale()
            yield Item(line, other)
        if next(scored, None) is not None:
            raise _stale()


class Library:
    """`evidence.jsonl` and `scored.jsonl` of one folder. Everything here blocks."""

    def __init__(self, folder: Path) -> None:
        self._evidence = folder / EVIDENCE
        self._scored = folder / SCORED

    # --- for stages ---------------------------------------------------------------------------

    def require(self) -> None:
        """Raise `Conflict` naming the stage whose product is missing."""
        for path, stage in ((self._evidence, "materialize"), (self._scored, "score")):
            if not path.exists():
                raise Conflict(
                    f"{path.name} is not there; run the stage `{stage}` first", code="stage_missing"
                )

    def hashes(self) -> tuple[str, str]:
        """sha256 of the evidence and of the categories."""
        return _sha256_of(self._evidence), _sha256_of(self._scored)

    def size_bytes(self) -> int:
        return self._evidence.stat().st_size

    def shards(self) -> list[Shard]:
        """The parts, in the order of the log. A worker process may read one by itself."""
        count = sum(1 for _ in lines_from(self._evidence))
        return [Shard("all", self._evidence, self._scored, count, self.size_bytes())]

    def item(self, evidence_id: str) -> Item | None:
        """The piece with this id, in whichever part it is."""
        line, other = line_with(self._evidence, evidence_id), line_with(self._scored, evidence_id)
        return Item(line, other) if line is not None and other is not None else None

    def first(self, item: Item) -> Item | None:
        """The attempt that a chain of repairs began with, or None when it cannot be followed to there."""
        current: Item | None = item
        for _ in range(CHAIN_MAX):
            if current is None:
                return None
            before = current.evidence.get("repair_of")
            if before is None:
                return current
            current = self.item(before)
        return None

    def in_order(self) -> Iterator[tuple[Judged, int]]:
        """Everything, each with the bytes read so far. Raises `Conflict` when score is behind."""
        scored, behind = lines_from(self._scored), 0
        for line in lines_from(self._evidence):
            other = next(scored, None)
            if other is None or id_of(other) != id_of(line):
                raise _stale()
            behind += len(line)
            judged = _judged(line, other)
            if judged.scored != scored_of(judged.evidence):
                raise _stale()
            yield judged, behind
        if next(scored, None) is not None:
            raise _stale()

    def get(self, evidence_id: str) -> Judged | None:
        line, other = line_with(self._evidence, evidence_id), line_with(self._scored, evidence_id)
        return _judged(line, other) if line is not None and other is not None else None

    def first_attempt(self, judged: Judged) -> Judged | None:
        """The attempt that a chain of repairs began with, or None when it cannot be followed to there."""
        current: Judged | None = judged
        for _ in range(CHAIN_MAX):
            if current is None or current.evidence.repair_of is None:
                return current
            current = self.get(current.evidence.repair_of)
        return None

    # --- for lists ----------------------------------------------------------------------------

    def category_of(self, evidence_id: str) -> Category | None:
        line = line_with(self._scored, evidence_id)
        return Scored.model_validate_json(line).category if line is not None else None

    def page(
        self, *, category: Category | None, limit: int, after: str | None, scan_max: int
    ) -> EvidencePage:
        """Up to `limit` pieces beyond `after`, looking at no more than `scan_max` of them."""
        items: list[EvidenceItem] = []
        seen, last = 0, after
        for line, other in self._joined(after):
            if len(items) == limit or seen == scan_max:
                return EvidencePage(evidence=items, cursor=last)
            seen, last = seen + 1, id_of(line)
            scored = Scored.model_validate_json(other) if other is not None else None
            if category is None or (scored is not None and scored.category == category):
                items.append(EvidenceItem(evidence=Evidence.model_validate_json(line), scored=scored))
        return EvidencePage(evidence=items)

    def _joined(self, after: str | None) -> Iterator[tuple[bytes, bytes | None]]:
        """Evidence with its category where it has one: the evidence may be newer than the categories."""
        scored = lines_from(self._scored, after)
        other = next(scored, None)
        for line in lines_from(self._evidence, after):
            while other is not None and id_of(other) < id_of(line):
                other = next(scored, None)
            yield line, other if other is not None and id_of(other) == id_of(line) else None


def _judged(line: bytes, other: bytes) -> Judged:
    return Judged(Evidence.model_validate_json(line), Scored.model_validate_json(other))


def _stale() -> Conflict:
    return Conflict(
        "the categories are not those of this evidence; run the stage `score` again", code="stage_stale"
    )


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
