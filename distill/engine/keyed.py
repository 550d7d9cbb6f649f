"""Tables by keys of 128 bits: put in order, cut into runs of equal entries, and matched with one another."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.engine.partindex import Halves, Table

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Keys = tuple[Halves, Halves]
"""The two halves of each key."""


def runs_of(values: NDArray[Any]) -> Iterator[tuple[int, int]]:
    """Where equal neighbours begin and end."""
    if not len(values):
        return
    edges = (np.flatnonzero(values[1:] != values[:-1]) + 1).tolist()
    yield from zip([0, *edges], [*edges, len(values)], strict=True)


def ordered(first: NDArray[Any], *rest: NDArray[Any]) -> Ints:
    """The order by these keys, the first one first; equal entries stay as they are.

    The first one tells nearly all apart, and to sort by it alone is thirty times as fast as `np.lexsort`; the
    others are looked at where it does not.
    """
    first = np.ascontiguousarray(first)
    order = np.argsort(first)
    if len(order) < 2:
        return order
    values = first[order]
    same = values[1:] == values[:-1]
    tied = np.zeros(len(order), np.bool_)
    tied[1:] |= same
    tied[:-1] |= same
    if tied.any():
        some = np.sort(order[tied])
        keys = [key[some] for key in reversed(rest)]
        order[tied] = some[np.lexsort((*keys, first[some]))]
    return order


def starts(table: Table, *names: str) -> Flags:
    """Which entries of a sorted table differ from the one before in any of these columns."""
    first = np.zeros(len(table), np.bool_)
    first[:1] = True
    for name in names:
        first[1:] |= table[name][1:] != table[name][:-1]
    return first


def are_in(values: NDArray[Any], known: NDArray[Any]) -> Flags:
    """Which of the values are among those known, which are sorted."""
    if not len(known):
        return np.zeros(len(values), np.bool_)
    found: Flags = known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values
    return found


def keys_of(table: Table, prefix: str = "") -> Keys:
    """The keys in the columns `hi` and `lo`."""
    return table[f"{prefix}hi"], table[f"{prefix}lo"]


def matched(have: Keys, asked: Keys) -> Ints:
    """For each asked key the place of the one with the same 128 bits, or -1. `have` has no key twice."""
    count = len(have[0])
    his = np.concatenate([have[0], asked[0]])
    los = np.concatenate([have[1], asked[1]])
    order = ordered(his, los, np.arange(len(his)))  # what is there comes before who asks for it
    his, los = his[order], los[order]
    first = np.ones(len(order), np.bool_)
    first[1:] = (his[1:] != his[:-1]) | (los[1:] != los[:-1])
    leader = order[np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))]
    target = np.full(len(his) - count, -1, np.int64)
    asking = np.flatnonzero((order >= count) & (leader < count))
    target[order[asking] - count] = leader[asking]
    return target
