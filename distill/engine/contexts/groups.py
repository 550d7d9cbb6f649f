"""Which pieces of evidence belong together, over all of it: what a task must not be helped by.

A group is what shares a job order, an episode or a prompt, or is nearly the same text, directly or through
others, as in the splits of exported datasets. Shards are looked at one by one; what is known of one stays
until it changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from distill.engine import notes, shards
from distill.engine.episodes import is_replay
from distill.engine.exports import samples, splits
from distill.engine.exports.grouping import gathered, pieces_of_work
from distill.engine.exports.rowing import Traits, column, part, said_in
from distill.engine.library import Library, Shard, opened
from distill.engine.pool import Pool
from distill.engine.products import sha256_of
from distill.engine.progress import Progress

FOLDER: Final = "groups"
KNOWN: Final = "groups.npy"
PARTS: Final = ("forms", "columns.npy", "bands.npy", "sketches.npy")
NOTE: Final = "traits"
LAYOUT: Final = "2"
"""Part of every note: what another version of this code left is made again."""
ENTRY: Final = np.dtype([("id", "<u8"), ("group", "<i8"), ("work", "<i8")])

Entries = NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Groups:
    """The group of every piece of evidence; `entries` are sorted by the first bits of the ids."""

    entries: Entries

    @classmethod
    def of_library(cls, data: Path, pool: Pool, progress: Progress, *, end: float = 1.0) -> Self:
        """The groups of the evidence as it stands. Blocks; moves `progress` up to `end`.

        Raises `Conflict` when a stage before is missing or stale.
        """
        library = Library(data / shards.FOLDER)
        library.require()
        work = data / shards.FOLDER / shards.INDEX / FOLDER
        work.mkdir(parents=True, exist_ok=True)
        stamp = shards.key(LAYOUT, library.hashes()[0])
        note = work / "known"
        if notes.kept(data, note) != [stamp, _sha256_of(work / KNOWN)]:
            tasks = [
                TraitsTask(data, shard, number, work, stamp) for number, shard in enumerate(library.shards())
            ]
            _gather(work, tasks, pool, progress, end)
            notes.keep(data, note, [stamp, sha256_of(work / KNOWN)])
        progress.reach(1, 1, end=end)
        return cls(np.load(work / KNOWN))

    def of(self, evidence_id: str) -> str | None:
        """16 hex digits that name the group; None for what is no evidence, or the evidence of a replay."""
        return self._name(evidence_id, "group")

    def work_of(self, evidence_id: str) -> str | None:
        """The same for the piece of work: what shares an order, an episode or a prompt, and no more.

        Near duplicates, such as all orders that were put into one template, are one group and many of these.
        """
        return self._name(evidence_id, "work")

    def _name(self, evidence_id: str, what: str) -> str | None:
        ids = self.entries["id"]
        wanted = np.uint64(int(evidence_id[:16], 16))
        place = int(np.searchsorted(ids, wanted))
        if place == len(ids) or ids[place] != wanted:
            return None
        return splits.group_name(int(self.entries[what][place]), "")

    def __len__(self) -> int:
        return len(self.entries)


def _gather(work: Path, tasks: "Sequence[TraitsTask]", pool: Pool, progress: Progress, end: float) -> None:
    for done, _ in enumerate(pool.map(survey_traits, tasks), start=1):
        progress.reach(done, len(tasks), end=0.7 * end)
    _, groups = gathered(work, len(tasks), pool)
    ids = column(work, len(tasks), "id")
    order = np.argsort(ids, kind="stable")
    entries = np.zeros(len(ids), dtype=ENTRY)
    entries["id"], entries["group"] = ids[order], groups.keys[order]
    entries["work"] = pieces_of_work(work, len(tasks)).keys[order]
    temporary = work / "groups.tmp.npy"
    np.save(temporary, entries)
    temporary.replace(work / KNOWN)
    _forget_beyond(work, len(tasks))


def _forget_beyond(work: Path, count: int) -> None:
    """Remove what is left of shards that are no more."""
    kept = {part(work, number, what).name for number in range(count) for what in (*PARTS, NOTE)}
    shards.keep_only(work, kept, "[0-9]*")


# --- a shard ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TraitsTask:
    """A shard to look at. `number` is its place among all; `stamp` tells this evidence from other."""

    data: Path
    shard: Shard
    number: int
    work: Path
    stamp: str


def survey_traits(task: TraitsTask) -> None:
    """Write what grouping needs of a shard, unless it is there from an earlier run."""
    made_from = [LAYOUT, sha256_of(task.shard.evidence)]
    note = part(task.work, task.number, NOTE)
    if notes.kept(task.data, note) == [*made_from, *_hashes(task)]:
        return
    library = opened(task.data / shards.FOLDER, task.stamp)
    with part(task.work, task.number, "forms").open("wb") as forms:
        traits = Traits(forms)
        for item in task.shard.read():
            if not is_replay(item.evidence):
                first = library.first(item) or item
                traits.add(item.evidence, samples.prompt_bytes(first), said_in(first, item))
    traits.save(task.work, task.number)
    notes.keep(task.data, note, [*made_from, *_hashes(task)])


def _hashes(task: TraitsTask) -> list[str | None]:
    return [_sha256_of(part(task.work, task.number, what)) for what in PARTS]


def _sha256_of(path: Path) -> str | None:
    return sha256_of(path) if path.exists() else None
