"""What a shard holds for reviewers: which of its evidence waits, and what was decided on the rest.

`score` leaves it beside its notes, since it looks at every piece anyway. It can always be made again.
"""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import IO, Any, Final

import orjson

from distill.engine import notes, shards
from distill.engine.episodes import is_replay
from distill.engine.review.decisions import Decided, standing
from distill.engine.rules import votes_of
from distill.engine.shards import EvidenceShard
from schemas.evidence import Category

VERSION: Final = 1
SUFFIX: Final = ".review"

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Pattern:
    """What makes two pieces alike to a reviewer: the codes found, the kind of work, the job role."""

    codes: tuple[str, ...]
    kind: str
    role: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A piece that needs a person. `disagreement` is from 0 to 1."""

    evidence_id: str
    pattern: Pattern
    disagreement: float


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A piece on which somebody decided, in the order of the decisions' times."""

    evidence_id: str
    pattern: Pattern
    decided: tuple[Decided, ...]


class ShardReviews:
    """The waiting and the reviewed pieces of one shard."""

    def __init__(self) -> None:
        self.waiting: list[Waiting] = []
        self.reviewed: list[Reviewed] = []

    def add(self, evidence: Json, category: Category | None) -> None:
        """Take note of a piece, if it concerns reviewers. Without a category, it does not wait.

        Neither does what a replay brought up: that is old work done again, to be compared, not learnt.
        """
        reviews = evidence.get("review") or ()
        waits = category == "needs_human_review" and not is_replay(evidence)
        if not waits and not reviews:
            return
        evidence_id, pattern = evidence["evidence_id"], pattern_of(evidence)
        if waits:
            self.waiting.append(Waiting(evidence_id, pattern, disagreement_of(evidence)))
        if reviews:
            self.reviewed.append(Reviewed(evidence_id, pattern, tuple(map(_decided, reviews))))

    def keep(self, data: Path, path: Path) -> None:
        """Write it down; what is alike is named once."""
        patterns = {pattern: n for n, pattern in enumerate(sorted({one.pattern for one in self._all()}))}
        content = {
            "version": VERSION,
            "patterns": [[list(one.codes), one.kind, one.role] for one in patterns],
            "waiting": [[one.evidence_id, patterns[one.pattern], one.disagreement] for one in self.waiting],
            "reviewed": [
                [
                    one.evidence_id,
                    patterns[one.pattern],
                    [[said.review_id, said.ts, said.by, said.decision] for said in one.decided],
                ]
                for one in self.reviewed
            ],
        }
        notes.keep(data, path, content)

    def _all(self) -> Iterable[Waiting | Reviewed]:
        yield from self.waiting
        yield from self.reviewed

    @classmethod
    def kept(cls, data: Path, path: Path) -> "ShardReviews | None":
        """What was written down, if it was here."""
        content = notes.kept(data, path)
        if content is None or content["version"] != VERSION:
            return None
        patterns = [Pattern(tuple(codes), kind, role) for codes, kind, role in content["patterns"]]
        found = cls()
        found.waiting = [
            Waiting(name, patterns[pattern], points) for name, pattern, points in content["waiting"]
        ]
        found.reviewed = [
            Reviewed(name, patterns[pattern], tuple(Decided(*one) for one in said))
            for name, pattern, said in content["reviewed"]
        ]
        return found


def reviews_of(data: Path, shard: EvidenceShard, scored: Path | None) -> ShardReviews:
    """What a shard holds for reviewers: as `score` noted it, else by going through the shard.

    `scored` is where the shard's categories lie, when there are any of this very evidence.
    """
    if scored is not None:
        kept = ShardReviews.kept(data, data / shards.FOLDER / shards.INDEX / f"{scored.stem}{SUFFIX}")
        if kept is not None:
            return kept
    made = ShardReviews()
    with ExitStack() as stack:
        categories = stack.enter_context(scored.open("rb")) if scored is not None else repeat(b"{}")
        for line, category in zip(stack.enter_context(_file(data, shard)), categories, strict=False):
            made.add(orjson.loads(line), orjson.loads(category).get("category"))
    return made


def _file(data: Path, shard: EvidenceShard) -> IO[bytes]:
    return shards.file_of(data, shard.evidence).open("rb")


def pattern_of(evidence: Json) -> Pattern:
    verdict = evidence.get("verdict") or {}
    task = evidence.get("task") or {}
    codes = {finding["code"] for finding in verdict.get("findings") or ()}
    kind = verdict.get("kind") or task.get("kind") or ""
    return Pattern(tuple(sorted(codes)), kind, evidence.get("role") or "")


def disagreement_of(evidence: Json) -> float:
    """1 where reviewers decided differently, 0.75 where people's votes contradict the validators, 0.5 where
    they contradict one another, else 0.
    """
    if standing(evidence.get("review") or ()) == "mixed":
        return 1.0
    votes = votes_of(evidence.get("feedback") or ())
    verdict = (evidence.get("verdict") or {}).get("verdict")
    if (verdict == "rejected" and votes == "positive") or (verdict == "accepted" and votes == "negative"):
        return 0.75
    return 0.5 if votes == "mixed" else 0.0


def _decided(review: Json) -> Decided:
    return Decided(review["review_id"], review["ts"], review["by"], review["decision"])
