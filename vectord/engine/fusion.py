"""One list out of several rankings."""

from collections.abc import Callable, Hashable, Sequence
from typing import Final, TypeVar

Item = TypeVar("Item")

RRF_K: Final = 60
"""The constant of reciprocal rank fusion as published; it damps the lead of the first places."""


def reciprocal_rank(
    rankings: Sequence[Sequence[Item]], identity: Callable[[Item], Hashable]
) -> list[tuple[Item, float]]:
    """Fuse rankings, best first. An item's score is the sum of 1 / (60 + its place, from 1) over them.

    Ties keep the order of first sight, ranking after ranking, so that the same input gives the same list.
    """
    scores: dict[Hashable, float] = {}
    items: dict[Hashable, Item] = {}
    for ranking in rankings:
        for place, item in enumerate(ranking, start=1):
            key = identity(item)
            items.setdefault(key, item)
            scores[key] = scores.get(key, 0.0) + 1 / (RRF_K + place)
    ordered = sorted(scores, key=lambda key: -scores[key])
    return [(items[key], scores[key]) for key in ordered]
