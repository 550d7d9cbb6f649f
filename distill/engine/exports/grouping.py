"""Between the passes: which rows repeat another, which belong together, and so which split each goes to.

Works on one column of all rows at a time, in arrays; nothing here holds texts but the comparison of two at
a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from distill.engine.exports import near, splits
from distill.engine.exports.rowing import band, column, part, sketches
from distill.engine.exports.splits import Components, Flags, Grouped, Keys, Nodes
from distill.engine.keyed import are_in
from distill.engine.openfiles import OpenFiles
from distill.engine.pool import Pool
from schemas.distill import JobRequest

ROUNDS_MAX: Final = 64
"""Texts of one band key are compared with the first of them, those not joined to it with the second, and so
on: with one text alone, a chain of rewordings that leads past it would be cut. Which ones come first differs
from band to band, so that of more texts than these others are tried elsewhere.
"""
PATIENCE: Final = 4
"""Rounds without a find, after which no more are made among many texts: they share a template, no more."""
FEW: Final = 16
"""Texts of one key that are compared each with each."""
_MIXER: Final = np.uint64(0x9E3779B97F4A7C15)
PAIRS_OF_A_TASK: Final = 2000
PAIRS_AT_ONCE: Final = 1 << 16
UNLIKE_MAX: Final = 1_000_000
"""Comparisons that are remembered, so as not to make them again for the next band."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What becomes of each row, in the order of the shards. `split` also names what is left out."""

    split: NDArray[np.uint8]
    group: Keys
    exact: Nodes
    near: Nodes
    groups: int


def decide(work: Path, count: int, options: JobRequest, held_ids: splits.Ids, pool: Pool) -> Decided:
    """Share out the rows of `count` shards. `held_ids` are those that were held out before."""
    ids, ts = column(work, count, "id"), column(work, count, "ts")
    held = are_in(ids, held_ids)
    repeated, exact = _repeats(work, count, ids, held)
    alike, groups = gathered(work, count, pool)
    split = splits.assign(
        groups, ts, held, options.shares, salt=options.salt, holdout_days=options.holdout_days
    )
    split[repeated] = splits.DUPLICATE
    return Decided(split, groups.keys, exact, _others(alike, repeated), len(np.unique(groups.labels)))


def gathered(work: Path, count: int, pool: Pool) -> tuple[Nodes, Grouped]:
    """The clusters of near duplicates, and the groups: rows that share an order, an episode, a prompt or a
    cluster, directly or through others.
    """
    ids, ts = column(work, count, "id"), column(work, count, "ts")
    alike = near_clusters(work, count, pool)
    joined = Components(len(ids))
    joined.join(np.arange(len(ids)), alike)
    keys = _own_keys(work, count, ids, joined)
    return alike, splits.grouped(joined.labels, ts, ids, keys)


def pieces_of_work(work: Path, count: int) -> Grouped:
    """Rows that share an order, an episode or a prompt, directly or through others, however like one another
    the texts of different ones are.
    """
    ids, ts = column(work, count, "id"), column(work, count, "ts")
    joined = Components(len(ids))
    keys = _own_keys(work, count, ids, joined)
    return splits.grouped(joined.labels, ts, ids, keys)


def _own_keys(work: Path, count: int, ids: splits.Ids, joined: Components) -> Keys:
    """Join what shares an order, an episode or a prompt; return what each row would name a group after."""
    keys: Keys = (ids >> np.uint64(1)).astype(np.int64)
    for name in ("prompt", "episode", "order"):
        shared = column(work, count, name)
        joined.join_equal(shared)
        if name != "prompt":
            keys = np.where(shared != 0, shared, keys)
    return keys


def _repeats(work: Path, count: int, ids: splits.Ids, held: Flags) -> tuple[Flags, Nodes]:
    """Which rows repeat one that stays, and how often each is repeated. Rows once held out stay first."""
    high, low = column(work, count, "row_high"), column(work, count, "row_low")
    order = np.lexsort((ids, ~held, low, high))
    same = np.zeros(len(ids), dtype=np.bool_)
    same[1:] = (high[order][1:] == high[order][:-1]) & (low[order][1:] == low[order][:-1])
    first = np.flatnonzero(~same)
    sizes = np.diff(np.append(first, len(order)))
    repeated = np.zeros(len(ids), dtype=np.bool_)
    repeated[order[same]] = True
    exact = np.zeros(len(ids), dtype=np.int64)
    exact[order[first]] = sizes - 1
    return repeated, exact


def _others(labels: Nodes, repeated: Flags) -> Nodes:
    """How many rows besides itself, repeats left out, are in each row's cluster."""
    sizes = np.bincount(labels[~repeated], minlength=len(labels)) if len(labels) else labels
    others: Nodes = sizes[labels] - 1
    return others


# --- near duplicates --------------------------------------------------------------------------


def near_clusters(work: Path, count: int, pool: Pool) -> Nodes:
    """Label the rows by clusters of near duplicates. The same for every number of processes and shards."""
    forms = column(work, count, "form")
    clusters = Components(len(forms))
    clusters.join_equal(forms)
    texts = _Texts.of(work, count, forms)
    found = Components(len(texts.nodes))
    unlike = np.empty(0, dtype=np.int64)
    for number in range(near.BANDS):
        keys = np.concatenate([*band(work, count, number), np.empty(0, dtype=np.uint64)])[texts.places]
        unlike = _join_band(keys, texts, found, unlike, pool)
    clusters.join(texts.nodes, texts.nodes[found.labels])
    return clusters.labels


@dataclass(frozen=True, slots=True)
class _Texts:
    """The different masked texts, in the order of their keys, and where each lies.

    `nodes` are rows that have them, `places` their columns among the band keys; a row of `where` is shard,
    place and size. `sketched` are the texts whose sketches say enough.
    """

    work: Path
    nodes: Nodes
    places: Nodes
    where: Nodes
    sketches: near.Octets
    sketched: Flags

    @classmethod
    def of(cls, work: Path, count: int, forms: Keys) -> "_Texts":
        at, size = column(work, count, "form_at"), column(work, count, "form_bytes")
        lengths = [len(np.load(part(work, one, "columns.npy"), mmap_mode="r")) for one in range(count)]
        shard = np.repeat(np.arange(count), lengths)
        stored = np.flatnonzero(at >= 0)
        _, first = np.unique(forms[stored], return_index=True)
        nodes = stored[first]
        where = np.stack((shard[nodes], at[nodes], size[nodes].astype(np.int64)), axis=1)
        sketched = where[:, 2] >= near.SKETCHED_BYTES_MIN
        return cls(work, nodes, first, where, sketches(work, count)[first], sketched)

    def worth_comparing(self, one: Nodes, other: Nodes) -> Flags:
        """Which of the pairs may be near duplicates."""
        worth = ~(self.sketched[one] & self.sketched[other])
        for start in range(0, len(one), PAIRS_AT_ONCE):
            some = slice(start, start + PAIRS_AT_ONCE)
            worth[some] |= near.may_be_alike(self.sketches[one[some]], self.sketches[other[some]])
        return worth


def _join_band(keys: near.Hashes, texts: _Texts, found: Components, unlike: Nodes, pool: Pool) -> Nodes:
    """Join the texts that meet in one band and are alike; return the comparisons that failed so far."""
    members, sizes = _meetings(keys)
    row = np.repeat(np.arange(len(sizes)), sizes)
    first = np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = np.arange(len(members)) - first
    found_at = np.zeros(len(sizes), dtype=np.int64)
    for number in range(ROUNDS_MAX):
        going_on = (sizes <= FEW) | (number - found_at < PATIENCE)
        one = members[np.minimum(first + number, len(members) - 1)]
        others = going_on[row] & (place > number) & (found.labels[members] != found.labels[one])
        if not others.any():
            break
        alike, unlike = _compared(texts, one[others], members[others], unlike, pool)
        found.join(one[others][alike], members[others][alike])
        found_at[row[others][alike]] = number + 1
    return unlike


def _meetings(keys: near.Hashes) -> tuple[Nodes, Nodes]:
    """The texts that share a key with others, those of one key in a row; and how long each row is."""
    members = np.lexsort(((np.arange(len(keys), dtype=np.uint64) ^ keys) * _MIXER, keys))
    ordered = keys[members]
    begins = np.ones(len(members), dtype=np.bool_)
    begins[1:] = ordered[1:] != ordered[:-1]
    sizes = np.diff(np.append(np.flatnonzero(begins), len(members)))
    return members[np.repeat(sizes > 1, sizes)], sizes[sizes > 1]


def _compared(texts: _Texts, one: Nodes, other: Nodes, unlike: Nodes, pool: Pool) -> tuple[Flags, Nodes]:
    """Which pairs are alike, and the comparisons that failed so far, which are not made again."""
    pairs = np.minimum(one, other) * len(texts.nodes) + np.maximum(one, other)
    fresh = texts.worth_comparing(one, other) & ~are_in(pairs, unlike)
    alike = np.zeros(len(one), dtype=np.bool_)
    alike[fresh] = _compare(texts, one[fresh], other[fresh], pool)
    if len(unlike) < UNLIKE_MAX:
        unlike = np.sort(np.concatenate((unlike, pairs[fresh & ~alike])))
    return alike, unlike


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Pairs of texts, each by shard, place and size. Pairs of one first text follow one another."""

    work: Path
    one: NDArray[np.int64]
    other: NDArray[np.int64]


def _compare(texts: _Texts, one: Nodes, other: Nodes, pool: Pool) -> Flags:
    tasks = [
        _Comparison(
            texts.work,
            texts.where[one[start : start + PAIRS_OF_A_TASK]],
            texts.where[other[start : start + PAIRS_OF_A_TASK]],
        )
        for start in range(0, len(one), PAIRS_OF_A_TASK)
    ]
    results = list(pool.map(compare_texts, tasks))
    return np.concatenate(results) if results else np.empty(0, dtype=np.bool_)


def compare_texts(task: _Comparison) -> Flags:
    """Which of the pairs are near duplicates, by the exact index."""
    with OpenFiles() as files:

        def shingles(shard: int, at: int, size: int) -> near.Hashes:
            return near.shingles(files.read(part(task.work, shard, "forms"), at, size))

        last: tuple[int, ...] | None = None
        result = np.zeros(len(task.one), dtype=np.bool_)
        for number, (one, other) in enumerate(zip(task.one.tolist(), task.other.tolist(), strict=True)):
            if tuple(one) != last:
                last, first = tuple(one), shingles(*one)
            result[number] = near.alike(first, shingles(*other))
        return result


# --- what each shard is told ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Share:
    """What was decided on the rows of one shard. `lines` are those of each split before it."""

    number: int
    split: NDArray[np.uint8]
    group: Keys
    exact: Nodes
    near: Nodes
    lines: tuple[int, ...]


def shares(work: Path, count: int, decided: Decided) -> Iterator[Share]:
    """The decisions shard by shard."""
    start = 0
    lines = np.zeros(len(splits.SPLITS), dtype=np.int64)
    for number in range(count):
        end = start + len(np.load(part(work, number, "columns.npy"), mmap_mode="r"))
        split = decided.split[start:end]
        yield Share(
            number,
            split,
            decided.group[start:end],
            decided.exact[start:end],
            decided.near[start:end],
            tuple(int(one) for one in lines),
        )
        counted: NDArray[Any] = np.bincount(split, minlength=len(splits.SPLITS))[: len(splits.SPLITS)]
        lines += counted
        start = end
