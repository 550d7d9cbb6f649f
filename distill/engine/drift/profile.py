"""A window of evidence reduced to counts of tasks: small whatever the window, and enough to be compared.

A task is what shares a task key, or else an episode, or else one piece. Its attempts are averaged first, so
that doing one task often does not make evidence of many. Repairs are left out: they answer another question.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, get_args

import numpy as np
from numpy.typing import NDArray

from distill.engine import partindex
from distill.engine.columns import CATEGORIES, CODE, ROW, UNDATED, Columns, Table
from distill.engine.times import time_at
from schemas.drift import DriftNumber, DriftProfile, Histogram, TaskVerdict
from schemas.replay import DriftProperty, Window

PROPERTIES: Final[tuple[DriftProperty, ...]] = get_args(DriftProperty)
NUMBERS: Final[tuple[DriftNumber, ...]] = get_args(DriftNumber)
VALUES_MAX: Final = 200
CODES_MAX: Final = 200
VERDICTS_MAX: Final = 20_000
NONE: Final = "(none)"
OTHER: Final = "(other)"
BINS_PER_OCTAVE: Final = 32

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Evidence:
    """The columns of all shards under one list of words. `codes` are the findings; their `row` counts
    through all rows.
    """

    rows: Table
    codes: Table
    words: list[str]

    @classmethod
    def of(cls, shards: Iterable[Columns], count: int) -> "Evidence":
        """Shards one behind the other. `count` is how many rows they have together."""
        places: dict[str, int] = {"": 0}
        rows, codes, before = np.empty(count, ROW), [np.empty(0, CODE)], 0
        for shard in shards:
            mapped = np.array([places.setdefault(word, len(places)) for word in shard.words], np.uint32)
            own = rows[before : before + len(shard.rows)]
            own[:] = shard.rows
            for name in PROPERTIES:
                own[name] = mapped[shard.rows[name]]
            shard.findings["code"] = mapped[shard.findings["code"]]
            shard.findings["row"] += np.uint32(before)
            codes.append(shard.findings)
            before += len(own)
        assert before == count
        return cls(rows, np.concatenate(codes), list(places))

    def part(self, chosen: Flags) -> "Evidence":
        """The rows that are chosen, in their order."""
        place = np.cumsum(chosen) - 1
        codes = self.codes[chosen[self.codes["row"]]]
        codes["row"] = place[codes["row"]]
        return Evidence(self.rows[chosen], codes, self.words)


def profile_of(evidence: Evidence, held: Flags, window: Window) -> DriftProfile:
    """The figures of a window, which holds these rows."""
    tasks = _Tasks(evidence.part(held & evidence.rows["first"]))
    findings = dict(tasks.findings())
    return DriftProfile(
        window=window,
        latest=_latest(evidence.rows["ts"][held]),
        tasks=tasks.count,
        judged=tasks.judged,
        inputs={name: tasks.values(name) for name in PROPERTIES},
        categories={name: tasks.shares(tasks.rows["category"] == at) for at, name in enumerate(CATEGORIES)},
        findings=findings,
        findings_full=len(findings) == CODES_MAX,
        numbers={name: tasks.numbers(name) for name in NUMBERS},
        verdicts=tasks.verdicts(),
    )


class _Tasks:
    """Attempts, those of one task behind one another in the order of time."""

    def __init__(self, attempts: Evidence) -> None:
        order = np.lexsort(
            (partindex.halves_of(attempts.rows["id"])[0], attempts.rows["ts"], attempts.rows["group"])
        )
        self.rows = attempts.rows[order]
        self._words = attempts.words
        self._codes = attempts.codes
        self._place = np.empty(len(order), np.int64)
        self._place[order] = np.arange(len(order))
        group = self.rows["group"]
        first = np.ones(len(group), np.bool_)
        first[1:] = group[1:] != group[:-1]
        self._starts = np.flatnonzero(first)
        self._task = np.cumsum(first) - 1
        self.count = len(self._starts)
        self._verdicts = self._sum(self.rows["verdict"] != partindex.NO_VERDICT)

    @property
    def judged(self) -> int:
        """The tasks with a verdict on at least one attempt."""
        return int(np.count_nonzero(self._verdicts))

    def values(self, name: DriftProperty) -> dict[str, int]:
        """The tasks by the value of a property, as their first attempt has it."""
        places, counts = np.unique(self.rows[name][self._starts], return_counts=True)
        order = np.lexsort((places, -counts)).tolist()
        found = {self._words[places[at]] or NONE: int(counts[at]) for at in order[:VALUES_MAX]}
        if rest := int(counts[order[VALUES_MAX:]].sum()):
            found[OTHER] = rest
        return dict(sorted(found.items()))

    def shares(self, having: Flags) -> Histogram:
        """The tasks by the share of their attempts that have something."""
        return _histogram(np.round(self._sum(having) / self._sum(np.ones(len(having), np.bool_)), 3))

    def findings(self) -> Iterator[tuple[str, Histogram]]:
        """The tasks with verdicts by the share of these that has a code: the most frequent codes."""
        tasks = self._task[self._place[self._codes["row"]]]
        pairs, times = np.unique(self._codes["code"] * np.int64(self.count) + tasks, return_counts=True)
        of_code, tasks = np.divmod(pairs, max(1, self.count))
        codes, starts, sizes = np.unique(of_code, return_index=True, return_counts=True)
        frequent = np.lexsort((codes, -sizes))[:CODES_MAX].tolist()
        judged = self._verdicts > 0
        for code, at in sorted((self._words[codes[at]], at) for at in frequent):
            having = slice(starts[at], starts[at] + sizes[at])
            share = np.zeros(self.count)
            share[tasks[having]] = times[having]
            yield code, _histogram(np.round(share[judged] / self._verdicts[judged], 3))

    def numbers(self, name: DriftNumber) -> Histogram:
        """The tasks by the mean of a number over the attempts that have it."""
        known = ~np.isnan(self.rows[name])
        count = self._sum(known)
        total = np.bincount(self._task[known], weights=self.rows[name][known], minlength=self.count)
        return _histogram(_binned(total[count > 0] / count[count > 0]))

    def verdicts(self) -> dict[str, TaskVerdict]:
        """How tasks with a key went: of very many those with the lowest hashes, the same in all windows."""
        judged = (self.rows["verdict"] != partindex.NO_VERDICT) & (self.rows["task"] != 0)
        count, accepted = self._sum(judged), self._sum(judged & (self.rows["verdict"] == partindex.ACCEPTED))
        last = np.zeros(self.count, np.int64)
        np.maximum.at(last, self._task[judged], np.flatnonzero(judged))
        found = np.flatnonzero(count)  # in the order of hashes, as the rows are
        return {
            f"{int(self.rows['task'][last[at]]):016x}": TaskVerdict(
                accepted=round(float(accepted[at] / count[at]), 3),
                evidence_id=self.rows["id"][last[at]].tobytes().hex(),
            )
            for at in found[:VERDICTS_MAX].tolist()
        }

    def _sum(self, having: Flags) -> Floats:
        """How many attempts of each task have something."""
        counted = np.bincount(self._task, weights=having, minlength=self.count)
        return counted.astype(np.float64)  # with no rows, whole numbers come back


def _histogram(values: Floats) -> Histogram:
    different, counts = np.unique(values, return_counts=True)
    return list(zip(different.tolist(), counts.tolist(), strict=True))


def _binned(values: Floats) -> Floats:
    """The middle of each value's bin. Bins are equal in logarithms; nothing and less is a bin of its own."""
    middle = np.zeros(len(values))
    above = values > 0
    bins, which = np.unique(np.floor(np.log2(values[above]) * BINS_PER_OCTAVE), return_inverse=True)
    exponents = np.clip((bins + 0.5) / BINS_PER_OCTAVE, -64, 63)
    middle[above] = np.array([float(f"{value:.4g}") for value in np.exp2(exponents)])[which]
    return middle


def _latest(ts: Ints) -> datetime | None:
    dated = ts[ts != UNDATED]
    return time_at(int(dated.max())) if len(dated) else None
