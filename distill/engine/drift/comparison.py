"""Two windows held against each other: what went in, what came out, and which differences are no accident."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from distill.engine.columns import CATEGORIES
from distill.engine.drift import statistics
from distill.engine.drift.profile import NUMBERS, PROPERTIES
from distill.engine.inference import holm, mcnemar
from schemas.drift import DriftNumber, DriftProfile, Histogram
from schemas.replay import DriftMetric, DriftProperty, Flip, InputDrift, OutputDrift

FLIPS_MAX: Final = 100

One = TypeVar("One", InputDrift, OutputDrift)

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Compared:
    inputs: list[InputDrift]
    outputs: list[OutputDrift]
    flips: list[Flip]


def compare(baseline: DriftProfile, current: DriftProfile, *, alpha: float, seed: int) -> Compared:
    """Everything that can be said of the two windows, `p` corrected by Holm over all tests."""
    return _Comparison(baseline, current, alpha, seed).done()


class _Comparison:
    def __init__(self, baseline: DriftProfile, current: DriftProfile, alpha: float, seed: int) -> None:
        self._baseline = baseline
        self._current = current
        self._alpha = alpha
        self._seed = seed

    def done(self) -> Compared:
        inputs = [self._input(name) for name in PROPERTIES]
        outputs = [*self._flipped(), *self._categories(), *self._findings(), *map(self._number, NUMBERS)]
        tested = [p for p in (*(one.p for one in inputs), *(one.p for one in outputs)) if p is not None]
        corrected = iter(holm(tested))
        return Compared(
            [one if one.p is None else self._judged(one, next(corrected)) for one in inputs],
            [one if one.p is None else self._judged(one, next(corrected)) for one in outputs],
            self._flips(),
        )

    def _judged(self, one: One, p: float) -> One:
        return one.model_copy(update={"p": p, "drifted": p < self._alpha})

    def _seeds(self, *what: str) -> tuple[int, int]:
        """Each test draws by itself, so that none depends on which others there are."""
        return self._seed, zlib.crc32("\0".join(what).encode())

    # --- what went in -------------------------------------------------------------------------

    def _input(self, name: DriftProperty) -> InputDrift:
        before, now = self._baseline.inputs.get(name, {}), self._current.inputs.get(name, {})
        values = sorted({*before, *now})
        baseline, current = _counts(before, values), _counts(now, values)
        known = bool(baseline.sum() and current.sum())
        shares, later = _parts(baseline), _parts(current)
        return InputDrift(
            property=name,
            baseline={value: share for value, share in zip(values, shares, strict=True) if share},
            current={value: share for value, share in zip(values, later, strict=True) if share},
            distance=round(float(np.abs(np.subtract(shares, later)).sum()) / 2, 6) if known else 0,
            p=statistics.spread_p(baseline, current, self._seeds("input", name)) if known else None,
        )

    # --- what came out ------------------------------------------------------------------------

    def _flipped(self) -> Iterator[OutputDrift]:
        """The share that was accepted of those tasks that are in both windows."""
        changes = self._changes()
        if not changes:
            return
        before, now = (
            sum(profile.verdicts[task].accepted for task in changes) / len(changes)
            for profile in (self._baseline, self._current)
        )
        fewer = [-change for change in changes.values() if change < 0]
        more = [change for change in changes.values() if change > 0]
        yield OutputDrift(
            metric="verdict_flip",
            baseline=before,
            current=now,
            difference=now - before,
            interval=statistics.paired_interval(sum(fewer), sum(more), len(changes), 1 - self._alpha),
            p=mcnemar(len(fewer), len(more)),
            drifted=False,
            baseline_tasks=len(changes),
            current_tasks=len(changes),
        )

    def _changes(self) -> dict[str, float]:
        """By how much each task that is in both windows was accepted more often."""
        before, now = self._baseline.verdicts, self._current.verdicts
        return {task: now[task].accepted - before[task].accepted for task in sorted(before.keys() & now)}

    def _flips(self) -> list[Flip]:
        """The tasks that changed most, those first that are accepted less often."""
        changes = [(change, task) for task, change in self._changes().items() if change]
        changes.sort(key=lambda one: (-abs(one[0]), one))
        return [
            Flip(
                baseline_evidence_id=self._baseline.verdicts[task].evidence_id,
                current_evidence_id=self._current.verdicts[task].evidence_id,
                accepted=change > 0,
            )
            for change, task in changes[:FLIPS_MAX]
        ]

    def _categories(self) -> Iterator[OutputDrift]:
        for name in CATEGORIES:
            yield self._rate(
                "category",
                name,
                self._baseline.categories.get(name, []),
                self._current.categories.get(name, []),
            )

    def _findings(self) -> Iterator[OutputDrift]:
        """The codes of both windows. One that a full list leaves out is rare there, and not known exactly."""
        before, now = self._baseline, self._current
        for code in sorted({*before.findings, *now.findings}):
            known = [code in one.findings or not one.findings_full for one in (before, now)]
            if all(known):
                yield self._rate("finding", code, _found(before, code), _found(now, code))

    def _rate(self, metric: DriftMetric, key: str, before: Histogram, now: Histogram) -> OutputDrift:
        """The mean over tasks of the share of attempts that have something."""
        values, baseline, current = _merged(before, now)
        tasks = int(baseline.sum()), int(current.sum())
        if not all(tasks):
            return _unknown(metric, key, tasks)
        rate, later = float(baseline @ values) / tasks[0], float(current @ values) / tasks[1]
        return OutputDrift(
            metric=metric,
            key=key,
            baseline=rate,
            current=later,
            difference=later - rate,
            interval=statistics.newcombe((rate, tasks[0]), (later, tasks[1]), 1 - self._alpha),
            p=statistics.permutation_p(values, baseline, current, self._seeds(metric, key)),
            drifted=False,
            baseline_tasks=tasks[0],
            current_tasks=tasks[1],
        )

    def _number(self, name: DriftNumber) -> OutputDrift:
        """The median, tested by ranks: a few very large values do not decide."""
        values, baseline, current = _merged(
            self._baseline.numbers.get(name, []), self._current.numbers.get(name, [])
        )
        tasks = int(baseline.sum()), int(current.sum())
        if not all(tasks):
            return _unknown(name, None, tasks)
        total = baseline + current
        ranks = np.cumsum(total) - (total - 1) / 2
        before, now = statistics.median(values, baseline), statistics.median(values, current)
        seeds = self._seeds("number", name)
        return OutputDrift(
            metric=name,
            baseline=before,
            current=now,
            difference=now - before,
            interval=statistics.median_interval(values, baseline, current, 1 - self._alpha, seeds),
            p=statistics.permutation_p(ranks, baseline, current, seeds),
            drifted=False,
            baseline_tasks=tasks[0],
            current_tasks=tasks[1],
        )


def _unknown(metric: DriftMetric, key: str | None, tasks: tuple[int, int]) -> OutputDrift:
    """Where one of the windows has nothing of the kind, there is nothing to compare."""
    return OutputDrift(
        metric=metric,
        key=key,
        baseline=None,
        current=None,
        difference=None,
        drifted=False,
        baseline_tasks=tasks[0],
        current_tasks=tasks[1],
    )


def _found(profile: DriftProfile, code: str) -> Histogram:
    """The tasks by the share that has a code; none have one that is not listed."""
    return profile.findings.get(code, [(0.0, profile.judged)] if profile.judged else [])


def _counts(tasks: Mapping[str, int], values: Sequence[str]) -> Counts:
    return np.array([tasks.get(value, 0) for value in values], np.int64)


def _parts(counts: Counts) -> list[float]:
    return [round(count / max(1, int(counts.sum())), 6) for count in counts.tolist()]


def _merged(before: Histogram, now: Histogram) -> tuple[Floats, Counts, Counts]:
    """The values of both in order, and how many tasks of each window have them."""
    values = sorted({value for value, _ in (*before, *now)})
    baseline, current = dict(before), dict(now)
    return (
        np.array(values, np.float64),
        np.array([baseline.get(value, 0) for value in values], np.int64),
        np.array([current.get(value, 0) for value in values], np.int64),
    )
