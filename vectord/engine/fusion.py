"""One list out of several rankings."""

from collections.abc import Callable, Hashable, Sequence
from typing import Final, TypeVar

Item = TypeVar("Item")

RRF_K: Final = 60
"""The constant of reciprocal rank fusion as published; it damps the lead of the first places."""


def reciprocal_rank(
    rankings: Sequence[Sequence[Item]],
    identity: Callable[[Item], Hashable],
    *,
    weights: Sequence[float] | None = None,
) -> list[tuple[Item, float]]:
    """Fuse rankings, best first. An item's score is the sum of weight / (60 + its place, from 1) over them.

    Each weight is 1 unless given; a ranking of weight 0 is left out.

    Ties keep the order of first sight, ranking after ranking, so that the same input gives the same list.
    """
    scores: dict[Hashable, float] = {}
    items: dict[Hashable, Item] = {}
    for ranking, weight in zip(rankings, weights or [1.0] * len(rankings), strict=True):
        if not weight:
            continue
        for place, item in enumerate(ranking, start=1):
            key = identity(item)
            items.setdefault(key, item)
            scores[key] = scores.get(key, 0.0) + weight / (RRF_K + place)
    ordered = sorted(scores, key=lambda key: -scores[key])
    return [(items[key], scores[key]) for key in ordered]
