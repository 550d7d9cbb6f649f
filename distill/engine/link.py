"""The joins between parts: one run twice, verdicts and feedback on runs, repairs within episodes, reviews.

Goes through all indexes range by range of keys, so that memory does not grow with the log, and leaves for
each part the list of what has to be joined to which of its lines. The list's bytes depend on nothing else, so
a part whose bytes and list are unchanged need not be written again.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from distill.engine import keyed, partindex
from distill.engine.inputs import Part
from distill.engine.keyed import Flags, Ints
from distill.engine.partindex import FENCES, PartIndex, Table, halves_of
from distill.engine.sources import AGAIN, OWN

RANGE_ENTRIES = 1 << 17
"""About as many entries of all parts are looked at in one go."""

JOIN: Final = np.dtype(
    [
        ("row", "<u4"),
        ("what", "u1"),
        ("origin", "<u8"),
        ("offset", "<u8"),
        ("length", "<u4"),
        ("evidence_id", "V32"),
    ]
)
"""What is joined to line `row`: a line at a place of another input, a piece of evidence, or a number."""

REPEATED, CONFLICT, COPIES, VERDICT, FEEDBACK, EPISODE_FEEDBACK, REVIEW, REPAIR_OF, REPAIRED_BY = range(9)

Packed = NDArray[np.uint64]
Parts = NDArray[np.uint32]


def origin_of(segment: str) -> int:
    """What a join names an input by: the same, however many inputs there are."""
    return int.from_bytes(hashlib.sha256(segment.encode()).digest()[:8], "little")


@dataclass(frozen=True, slots=True)
class LinkTask:
    """Parts in the order of the log, each with its index; `joins` is the file to write."""

    parts: Sequence[tuple[Part, Path]]
    joins: Path


@dataclass(frozen=True, slots=True)
class Joins:
    """A part's list in the file of joins."""

    offset: int
    count: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Linked:
    """`joined` and `unmatched` count what was said of turns, `duplicates` repetitions of any record."""

    joins: list[Joins]
    duplicates: int
    joined: int
    unmatched: int


def link(task: LinkTask) -> Linked:
    return _Linking(task).done()


@dataclass(slots=True)
class _Sink:
    """Collects joins, on the disk, by part."""

    file: IO[bytes]
    slices: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    at: int = 0

    def put(self, part: NDArray[Any], joins: Table) -> None:
        order = np.argsort(part, kind="stable")
        part, joins = part[order], joins[order]
        for start, end in keyed.runs_of(part):
            self.slices.setdefault(int(part[start]), []).append((self.at + start, end - start))
        self.file.write(joins.tobytes())
        self.at += len(joins)


@dataclass(frozen=True, slots=True)
class _Places:
    """Lines, by part and row."""

    parts: Parts
    rows: Parts


class _Linking:
    def __init__(self, task: LinkTask) -> None:
        self._task = task
        self._parts = [part for part, _ in task.parts]
        self._indexes = [PartIndex(path) for _, path in task.parts]
        self._origins = np.array([origin_of(part.segment) for part in self._parts], np.uint64)
        self._own = [number for number, part in enumerate(self._parts) if part.kind == OWN]
        self._duplicates = self._joined = self._unmatched = 0
        self._losers: list[Packed] = []
        self._verdicts: list[tuple[Packed, NDArray[np.uint8]]] = []

    def done(self) -> Linked:
        spill = self._task.joins.with_suffix(".spill")
        with spill.open("wb+") as file:
            sink = _Sink(file)
            for first, last in self._ranges("runs"):
                self._link_runs(sink, first, last)
            losers = np.sort(np.concatenate([np.empty(0, np.uint64), *self._losers]))
            overriding = self._overriding()
            for first, last in self._ranges("attempts"):
                self._link_episodes(sink, first, last, losers, overriding)
            self._link_reviews(sink, losers)
            joins = self._sorted(sink)
        spill.unlink()
        return Linked(joins, self._duplicates, self._joined, self._unmatched)

    def _ranges(self, table: str) -> Iterator[tuple[int, int]]:
        """Ranges of a key's first byte that hold about `RANGE_ENTRIES` of a table."""
        total = sum(index.count(table) for index in self._indexes)
        count = 1 << min(8, max(0, math.ceil(math.log2(max(1, total) / RANGE_ENTRIES))))
        step = FENCES // count
        return ((first, first + step) for first in range(0, FENCES, step))

    def _gather(self, name: str, first: int = 0, last: int = FENCES) -> tuple[Table, Parts]:
        """The entries of all parts within a range, and the part of each."""
        tables = [index.table(name, first, last) for index in self._indexes]
        kind = partindex.TABLES[name]
        parts = np.repeat(np.arange(len(tables), dtype=np.uint32), [len(table) for table in tables])
        return np.concatenate([np.empty(0, kind), *tables]), parts

    # --- runs ---------------------------------------------------------------------------------

    def _link_runs(self, sink: _Sink, first: int, last: int) -> None:
        runs, parts = self._gather("runs", first, last)
        order = keyed.ordered(runs["hi"], runs["lo"], parts, runs["row"])
        runs, parts = runs[order], parts[order]
        starts = keyed.starts(runs, "hi", "lo")
        group = np.cumsum(starts) - 1
        winner = np.flatnonzero(starts)
        self._sort_out(sink, runs, parts, winner[group], ~starts)
        notes, note_parts = self._fresh_notes("run_notes", first, last)
        target = keyed.matched(keyed.keys_of(runs[winner]), keyed.keys_of(notes))
        self._count(target)
        found = np.flatnonzero(target >= 0)
        notes, note_parts, target = notes[found], note_parts[found], winner[target[found]]
        places = _Places(parts[target], runs["row"][target])
        self._join_notes(sink, places, notes, note_parts)

    def _sort_out(self, sink: _Sink, runs: Table, parts: Parts, winner: Ints, loses: Flags) -> None:
        """Tell repetitions and conflicts, and count the repetitions on the run that was first."""
        losers = np.flatnonzero(loses)
        if not len(losers):
            return
        first = winner[losers]
        same = (runs["dhi"][losers] == runs["dhi"][first]) & (runs["dlo"][losers] == runs["dlo"][first])
        joins = np.zeros(len(losers), JOIN)
        joins["row"] = runs["row"][losers]
        joins["what"] = np.where(same, REPEATED, CONFLICT)
        sink.put(parts[losers], joins)
        self._losers.append(_packed(parts[losers], runs["row"][losers]))
        self._duplicates += int(same.sum())
        survivors, copies = np.unique(first[same], return_counts=True)
        counts = np.zeros(len(survivors), JOIN)
        counts["row"], counts["what"], counts["length"] = runs["row"][survivors], COPIES, copies
        sink.put(parts[survivors], counts)

    def _join_notes(self, sink: _Sink, runs: "_Places", notes: Table, note_parts: Parts) -> None:
        """Join all feedback, and the latest verdict, each to its run."""
        target = _packed(runs.parts, runs.rows)
        order = keyed.ordered(target, notes["what"], notes["ts"], notes["dhi"], notes["dlo"])
        notes, note_parts, target = notes[order], note_parts[order], target[order]
        is_verdict = notes["what"] == partindex.VERDICT
        last = np.ones(len(notes), np.bool_)
        last[:-1] = (target[1:] != target[:-1]) | ~is_verdict[1:]
        latest = np.flatnonzero(is_verdict & last)
        self._verdicts.append((target[latest], notes["verdict"][latest]))
        chosen = np.flatnonzero(~is_verdict | last)
        joins = self._joins_to(notes[chosen], note_parts[chosen])
        joins["row"] = runs.rows[order[chosen]]
        joins["what"] = np.where(is_verdict[chosen], VERDICT, FEEDBACK)
        sink.put(runs.parts[order[chosen]], joins)

    def _fresh_notes(self, name: str, first: int, last: int) -> tuple[Table, Parts]:
        """Notes in order of their keys, repetitions counted and left out."""
        notes, parts = self._gather(name, first, last)
        order = keyed.ordered(notes["hi"], notes["lo"], notes["dhi"], notes["dlo"], parts, notes["row"])
        notes, parts = notes[order], parts[order]
        fresh = np.flatnonzero(keyed.starts(notes, "hi", "lo", "dhi", "dlo"))
        self._duplicates += len(notes) - len(fresh)
        return notes[fresh], parts[fresh]

    def _joins_to(self, notes: Table, parts: Parts) -> Table:
        joins = np.zeros(len(notes), JOIN)
        joins["origin"] = self._origins[parts]
        joins["offset"], joins["length"] = notes["offset"], notes["length"]
        return joins

    def _count(self, target: Ints) -> None:
        found = int((target >= 0).sum())
        self._joined += found
        self._unmatched += len(target) - found

    def _overriding(self) -> tuple[Packed, NDArray[np.uint8]]:
        """The verdicts that came apart from their runs, by place of the run."""
        places = np.concatenate([np.empty(0, np.uint64), *(places for places, _ in self._verdicts)])
        codes = np.concatenate([np.empty(0, np.uint8), *(codes for _, codes in self._verdicts)])
        order = np.argsort(places)
        return places[order], codes[order]

    # --- episodes -----------------------------------------------------------------------------

    def _link_episodes(
        self,
        sink: _Sink,
        first: int,
        last: int,
        losers: Packed,
        overriding: tuple[Packed, NDArray[np.uint8]],
    ) -> None:
        attempts, parts = self._gather("attempts", first, last)
        counts = np.flatnonzero(~keyed.are_in(_packed(parts, attempts["row"]), losers))
        attempts, parts = attempts[counts], parts[counts]
        names = ("lo", "task", "ts", "name_hi", "name_lo")
        order = keyed.ordered(attempts["hi"], *(attempts[name] for name in names), parts)
        attempts, parts = attempts[order], parts[order]
        order = self._by_name(attempts, parts)
        attempts, parts = attempts[order], parts[order]
        repaired = _repaired(attempts, _failed(attempts, parts, overriding))
        self._join_repairs(sink, attempts, parts, repaired)
        self._join_episode_notes(sink, attempts, parts, first, last)

    def _by_name(self, attempts: Table, parts: Parts) -> Ints:
        """The order of attempts, with ties in time settled by the whole of the runs' ids."""
        order = np.arange(len(attempts))
        tied = ~keyed.starts(attempts, "hi", "lo", "task", "ts", "name_hi", "name_lo")
        if not tied.any():
            return order
        group = np.cumsum(~tied)
        for start, end in keyed.runs_of(group):
            if end - start > 1:
                names = [self._name_at(int(parts[at]), int(attempts["row"][at])) for at in range(start, end)]
                order[start:end] = start + np.array(sorted(range(end - start), key=lambda at: names[at]))
        return order

    def _name_at(self, part: int, row: int) -> str:
        """The name of the turn on a line, read from the line itself."""
        place = self._indexes[part].table("rows")[row]
        with self._parts[part].path.open("rb", buffering=0) as file:
            file.seek(int(place["offset"]))
            turn = AGAIN[self._parts[part].kind](orjson.loads(file.read(int(place["length"]))))
        assert not isinstance(turn, dict)
        return turn.key

    def _join_repairs(self, sink: _Sink, attempts: Table, parts: Parts, repaired: Ints) -> None:
        later = np.flatnonzero(repaired >= 0)
        draft = repaired[later]
        joins = np.zeros(len(later), JOIN)
        joins["row"], joins["what"] = attempts["row"][later], REPAIR_OF
        joins["evidence_id"] = attempts["evidence_id"][draft]
        sink.put(parts[later], joins)
        drafts, firsts = np.unique(draft, return_index=True)
        back = np.zeros(len(drafts), JOIN)
        back["row"], back["what"] = attempts["row"][drafts], REPAIRED_BY
        back["evidence_id"] = attempts["evidence_id"][later[firsts]]
        sink.put(parts[drafts], back)

    def _join_episode_notes(self, sink: _Sink, attempts: Table, parts: Parts, first: int, last: int) -> None:
        notes, note_parts = self._fresh_notes("episode_notes", first, last)
        starts = np.flatnonzero(keyed.starts(attempts, "hi", "lo"))
        ends = np.append(starts[1:], len(attempts))
        target = keyed.matched(keyed.keys_of(attempts[starts]), keyed.keys_of(notes))
        self._count(target)
        for at in np.flatnonzero(target >= 0).tolist():
            episode = np.arange(starts[target[at]], ends[target[at]])
            joins = np.repeat(self._joins_to(notes[at : at + 1], note_parts[at : at + 1]), len(episode))
            joins["row"], joins["what"] = attempts["row"][episode], EPISODE_FEEDBACK
            sink.put(parts[episode], joins)

    # --- reviews ------------------------------------------------------------------------------

    def _link_reviews(self, sink: _Sink, losers: Packed) -> None:
        """Join reviews to evidence of any source. There are as many of them as people have decided."""
        reviews, review_parts = self._fresh_notes("reviews", 0, FENCES)
        if not len(reviews):
            return
        found = np.zeros(len(reviews), np.bool_)
        for number, index in enumerate(self._indexes):
            rows = index.table("rows")
            lines = np.flatnonzero(rows["kind"] == partindex.IS_RUN).astype(np.uint32)
            lines = lines[~keyed.are_in(_packed(np.full(len(lines), number, np.uint32), lines), losers)]
            ids = _halves(rows["evidence_id"][lines])
            ids["row"] = lines
            ids = ids[keyed.ordered(ids["hi"], ids["lo"])]
            target = keyed.matched(keyed.keys_of(ids), keyed.keys_of(reviews))
            here = np.flatnonzero(target >= 0)
            joins = self._joins_to(reviews[here], review_parts[here])
            joins["row"], joins["what"] = ids["row"][target[here]], REVIEW
            sink.put(np.full(len(here), number, np.uint32), joins)
            found[here] = True
        self._count(np.where(found, 0, -1))

    # --- the lists ----------------------------------------------------------------------------

    def _sorted(self, sink: _Sink) -> list[Joins]:
        """Write each part's joins in one piece, in an order of their own."""
        lists: list[Joins] = []
        sink.file.flush()
        with self._task.joins.open("wb") as file:
            at = 0
            for part in range(len(self._parts)):
                pieces = [
                    np.fromfile(sink.file.name, JOIN, count, offset=offset * JOIN.itemsize)
                    for offset, count in sink.slices.get(part, ())
                ]
                joins = np.concatenate([np.empty(0, JOIN), *pieces])
                names = ("length", "offset", "origin", "what", "row")
                data = joins[np.lexsort([joins[name] for name in names])].tobytes()
                file.write(data)
                lists.append(Joins(at, len(joins), hashlib.sha256(data).hexdigest()))
                at += len(data)
        return lists


def _packed(parts: Parts, rows: Parts) -> Packed:
    """Part and row in one number."""
    return parts.astype(np.uint64) << np.uint64(32) | rows.astype(np.uint64)


def _failed(attempts: Table, parts: Parts, overriding: tuple[Packed, NDArray[np.uint8]]) -> Flags:
    """Which attempts have a verdict other than accepted. One that came apart from its run outranks it."""
    verdicts = attempts["verdict"].copy()
    places, codes = overriding
    if len(places):
        mine = _packed(parts, attempts["row"])
        at = np.minimum(np.searchsorted(places, mine), len(places) - 1)
        known = places[at] == mine
        verdicts[known] = codes[at[known]]
    failed: Flags = verdicts == partindex.OTHER_VERDICT
    return failed


def _repaired(attempts: Table, failed: Flags) -> Ints:
    """For each attempt the place of the one that it repairs, or -1.

    That is the earlier attempt at the same task that it names, or else the one just before it, if that
    failed. Only earlier ones count, so no chain runs in circles.
    """
    places = np.arange(len(attempts))
    starts = keyed.starts(attempts, "hi", "lo", "task")
    group = np.cumsum(starts)
    explicit = attempts["explicit"] != 0
    before = np.where(starts, -1, places - 1)
    implied = ~explicit & (before >= 0) & (attempts["task"] != 0) & failed[before]
    repaired = np.where(implied, before, -1)
    asking = np.flatnonzero(explicit)
    by_run = np.lexsort((attempts["run_lo"], attempts["run_hi"]))
    unique = by_run[keyed.starts(attempts[by_run], "run_hi", "run_lo")]
    named = keyed.matched(
        keyed.keys_of(attempts[unique], "run_"), keyed.keys_of(attempts[asking], "repairs_")
    )
    there = np.flatnonzero(named >= 0)
    later, draft = asking[there], unique[named[there]]
    fits = (group[draft] == group[later]) & (draft < later)
    repaired[later[fits]] = draft[fits]
    return repaired


def _halves(ids: NDArray[np.void]) -> Table:
    """The first 128 bits of evidence ids, as keys with room for a row."""
    keys = np.zeros(len(ids), np.dtype([("hi", "<u8"), ("lo", "<u8"), ("row", "<u4")]))
    keys["hi"], keys["lo"] = halves_of(ids)
    return keys
