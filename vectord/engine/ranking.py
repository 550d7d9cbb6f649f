"""Searching one shard in one of the modes, and putting the hits of several into one order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from schemas.vectors import Mode
from vectord.backends import Query, Scored, Where
from vectord.engine.embedding import Vector
from vectord.engine.fusion import reciprocal_rank
from vectord.engine.opened import Opened

CANDIDATES_MIN: Final = 50
"""Hits that each side of a hybrid search brings to the fusion, at least."""


@dataclass(frozen=True, slots=True)
class Question:
    """A search, embedded and checked."""

    mode: Mode
    k: int
    text: str | None
    vector: Vector | None
    exact: bool = False
    score_min: float | None = None
    with_vector: bool = False
    weights: tuple[float, float] = (1.0, 1.0)
    """Of the vectors and of the words, where both are asked."""
    ef: int | None = None


def search(opened: Opened, question: Question, where: Where) -> list[Scored]:
    def ask(limit: int, *, vector: Vector | None = None, text: str | None = None) -> list[Scored]:
        query = Query(
            limit, vector, text, exact=question.exact, with_vector=question.with_vector, ef=question.ef
        )
        return opened.shard.search(query, where)

    if question.mode == "dense":
        return ask(question.k, vector=question.vector)
    if question.mode == "sparse":
        return ask(question.k, text=question.text)
    candidates = max(CANDIDATES_MIN, 2 * question.k)
    rankings = (ask(candidates, vector=question.vector), ask(candidates, text=question.text))
    fused = reciprocal_rank(rankings, lambda hit: hit.record.id, weights=question.weights)
    return [Scored(hit.record, score) for hit, score in fused[: question.k]]


def comparable(asked: Sequence[Opened], mode: str) -> bool:
    kinds = {(opened.manifest.model_digest, opened.spec.distance) for opened in asked}
    return len(asked) == 1 or (mode == "dense" and len(kinds) == 1)


def merge(rankings: Sequence[list[tuple[str, Scored]]], *, by_score: bool) -> list[tuple[str, Scored]]:
    if by_score:
        together = [found for ranking in rankings for found in ranking]
        return sorted(together, key=lambda found: -found[1].score)
    fused = reciprocal_rank(rankings, lambda found: (found[0], found[1].record.id))
    return [(name, Scored(hit.record, score)) for (name, hit), score in fused]
