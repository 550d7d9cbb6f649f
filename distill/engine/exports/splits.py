"""Splits that leak nothing: rows that belong together stand in one split, and the holdout never shrinks.

Rows belong together when they share a job order, an episode or a prompt, or are near duplicates, directly
or through others. A group's split follows from a hash of its oldest row's key, so it stays where it is
while data grows. A time holdout takes the last days; what was held out once stays so. Whatever else belongs
to a group with a row in the holdout, and is not held out itself, is left out.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.distill import SplitShares
from services import files

Ids = NDArray[np.uint64]
Keys = NDArray[np.int64]
Nodes = NDArray[np.int64]
Flags = NDArray[np.bool_]

TRAIN: Final = 0
VALIDATION: Final = 1
HOLDOUT: Final = 2
TOUCHES_HOLDOUT: Final = 3
DUPLICATE: Final = 4
SPLITS: Final = ("train", "validation", "holdout")

BUCKETS: Final = 10_000
LARGE_ROWS: Final = 1000
"""A group of more rows than this, and larger than the split that its hash names, stays in train: it is no
leak between a few alike rows but a template, and would be the whole dataset of that split.
"""
DAY_US: Final = 24 * 60 * 60 * 1_000_000


class Components:
    """Connected components over `count` nodes, in arrays: `labels[n]` is the smallest node joined to `n`."""

    def __init__(self, count: int) -> None:
        self.labels: Nodes = np.arange(count, dtype=np.int64)

    def join_equal(self, keys: Keys) -> None:
        """Join the nodes of equal key. Key 0 stands for none."""
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        same = np.flatnonzero((ordered[1:] == ordered[:-1]) & (ordered[1:] != 0))
        self.join(order[same], order[same + 1])

    def join(self, one: Nodes, other: Nodes) -> None:
        """Join nodes in pairs."""
        while len(one):
            left, right = self.labels[one], self.labels[other]
            apart = left != right
            if not apart.any():
                return
            one, other, left, right = one[apart], other[apart], left[apart], right[apart]
            lower = np.minimum(left, right)
            np.minimum.at(self.labels, left, lower)
            np.minimum.at(self.labels, right, lower)
            self._shorten()

    def _shorten(self) -> None:
        while True:
            shorter = self.labels[self.labels]
            if np.array_equal(shorter, self.labels):
                return
            self.labels = shorter


@dataclass(frozen=True, slots=True)
class Grouped:
    """Rows in groups: `labels` names each row's group by a node of it, `keys` what its split follows from."""

    labels: Nodes
    keys: Keys


def grouped(labels: Nodes, ts: Keys, ids: Ids, keys: Keys) -> Grouped:
    """Give every row the key of the oldest row of its group (by time, then id)."""
    order = np.lexsort((ids, ts, labels))
    ordered = labels[order]
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    of_group = np.cumsum(first) - 1
    result = np.empty(len(order), dtype=np.int64)
    result[order] = keys[order[first]][of_group]
    return Grouped(labels, result)


def assign(
    groups: Grouped, ts: Keys, held: Flags, shares: SplitShares, *, salt: str, holdout_days: int | None
) -> NDArray[np.uint8]:
    """The split of every row, or `TOUCHES_HOLDOUT`. `held` marks rows that an earlier holdout contains.

    When no group would be left to train on, the largest without a row held out before goes there.
    """
    names, place, sizes = np.unique(groups.labels, return_inverse=True, return_counts=True)
    keys = np.zeros(len(names), dtype=np.int64)
    keys[place] = groups.keys
    hashed = np.array([_split_of(int(key), salt, shares) for key in keys], dtype=np.uint8)
    hashed[_outgrown(hashed, sizes, shares)] = TRAIN
    held = held | _recent(ts, holdout_days)
    touched = np.bincount(place, weights=held, minlength=len(names)) > 0
    if len(names) and not ((hashed == TRAIN) & ~touched).any():
        free = np.flatnonzero(~touched)
        if len(free):
            hashed[free[np.lexsort((keys[free], -sizes[free]))[0]]] = TRAIN
    splits: NDArray[np.uint8] = hashed[place]
    splits[touched[place] & (splits != HOLDOUT)] = TOUCHES_HOLDOUT
    splits[held] = HOLDOUT
    return splits


def group_name(key: int, salt: str) -> str:
    """16 hex digits that name a group without telling its order or episode."""
    return hashlib.sha256(f"{salt}\0{key:016x}".encode()).hexdigest()[:16]


def _split_of(key: int, salt: str, shares: SplitShares) -> int:
    bucket = int(group_name(key, salt)[:8], 16) % BUCKETS
    if bucket < round(shares.holdout * BUCKETS):
        return HOLDOUT
    return VALIDATION if bucket < round((shares.holdout + shares.validation) * BUCKETS) else TRAIN


def _outgrown(hashed: NDArray[np.uint8], sizes: Nodes, shares: SplitShares) -> Flags:
    rows = int(sizes.sum())
    room = np.array([rows, shares.validation * rows, shares.holdout * rows])[hashed]
    return (sizes > LARGE_ROWS) & (sizes > room)


def _recent(ts: Keys, days: int | None) -> Flags:
    """Rows of the last `days` before the newest one. The clock is the data's own."""
    if days is None or not len(ts):
        return np.zeros(len(ts), dtype=np.bool_)
    newest = int(ts.max())
    return (ts > newest - days * DAY_US) & (ts > 0)


class HoldoutIds:
    """The evidence that was ever held out under one salt: a file of ids, to which lines are only added."""

    def __init__(self, folder: Path, salt: str) -> None:
        self.path = folder / f"{hashlib.sha256(salt.encode()).hexdigest()[:16]}.ids"

    def prefixes(self) -> Ids:
        """The first 64 bits of each id, sorted."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return np.empty(0, dtype=np.uint64)
        whole = data[: data.rfind(b"\n") + 1]
        return np.unique(np.array([int(line[:16], 16) for line in whole.split()], dtype=np.uint64))

    def add(self, ids: list[str]) -> None:
        """Append ids that are not there yet; returns when they are on the medium."""
        known = set(self.path.read_bytes().decode().split()) if self.path.exists() else set()
        new = sorted(set(ids) - known)
        if not new:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)  # what a crash left of a line
            file.write("".join(f"{one}\n" for one in new).encode())
            file.flush()
            os.fsync(file.fileno())
        files.sync_folder(self.path.parent)
