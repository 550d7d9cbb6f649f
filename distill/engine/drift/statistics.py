"""The tests and intervals of two independent windows: exact where there are two values, seeded otherwise.

Shapes: a metric has K different values; `baseline` and `current` count the tasks of a window by value, (K,).
Every test asks the same: were it chance alone which tasks fell into which window, how often would the windows
differ as much as they do?
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from distill.engine.inference import Interval, quantile, wilson

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

DRAWS: Final = 9_999
"""With the observation itself that makes 10,000, so that the least p is 0.0001."""
RESAMPLES: Final = 2_000
TIE: Final = 1e-9


# --- tests --------------------------------------------------------------------------------------


def permutation_p(scores: Floats, baseline: Counts, current: Counts, seed: Sequence[int]) -> float:
    """The two-sided p of a difference of mean scores. `scores` has one for each value."""
    there = baseline + current > 0
    scores, baseline, current = scores[there], baseline[there], current[there]
    if len(scores) < 2 or not baseline.any() or not current.any():
        return 1.0
    if len(scores) == 2:
        return fisher_p(baseline, current)
    total = baseline + current
    expected = int(current.sum()) * float(total @ scores) / int(total.sum())
    sums = _drawn(total, int(current.sum()), seed) @ scores
    return _share_beyond(np.abs(sums - expected), abs(float(current @ scores) - expected))


def spread_p(baseline: Counts, current: Counts, seed: Sequence[int]) -> float:
    """The p of a difference in the mix of values that have no order, by the chi-squared distance."""
    there = baseline + current > 0
    baseline, current = baseline[there], current[there]
    if len(baseline) < 2 or not baseline.any() or not current.any():
        return 1.0
    if len(baseline) == 2:
        return fisher_p(baseline, current)
    total = baseline + current
    expected = total * (int(current.sum()) / int(total.sum()))
    drawn = ((_drawn(total, int(current.sum()), seed) - expected) ** 2 / total).sum(axis=1)
    return _share_beyond(drawn, float(((current - expected) ** 2 / total).sum()))


def _drawn(total: Counts, count: int, seed: Sequence[int]) -> Counts:
    """How many tasks of each value fall among `count` of all, drawn again and again: (DRAWS, K)."""
    random = np.random.default_rng(seed)
    return random.multivariate_hypergeometric(total, count, size=DRAWS, method="marginals")


def _share_beyond(drawn: Floats, observed: float) -> float:
    beyond = int(np.count_nonzero(drawn >= observed * (1 - TIE)))
    return (1 + beyond) / (1 + DRAWS)


def fisher_p(baseline: Counts, current: Counts) -> float:
    """Fisher's exact test, two-sided: `baseline` and `current` have the tasks of two values."""
    before, now = int(baseline.sum()), int(current.sum())
    marked = int(baseline[0] + current[0])
    least, most = max(0, marked - before), min(marked, now)
    at = np.arange(least, most, dtype=np.float64)
    steps = np.log((marked - at) * (now - at)) - np.log((at + 1) * (before - marked + at + 1))
    logs = np.concatenate([np.zeros(1), np.cumsum(steps)])  # of how likely each outcome is, beside the first
    weights = np.exp(logs - logs.max())
    no_likelier = logs <= logs[int(current[0]) - least] + TIE
    return min(1.0, float(weights[no_likelier].sum() / weights.sum()))


# --- intervals ----------------------------------------------------------------------------------


def newcombe(before: tuple[float, int], now: tuple[float, int], confidence: float) -> Interval:
    """Newcombe's interval of the difference of two rates, each given with the number of its tasks.

    For means of shares it is wider than need be.
    """
    low_before, high_before = wilson(*before, confidence)
    low_now, high_now = wilson(*now, confidence)
    difference = now[0] - before[0]
    return (
        difference - math.hypot(now[0] - low_now, high_before - before[0]),
        difference + math.hypot(high_now - now[0], before[0] - low_before),
    )


def paired_interval(fewer: float, more: float, tasks: int, confidence: float) -> Interval:
    """Agresti and Min's interval of the difference of two rates over the same tasks."""
    count = tasks + 2
    difference = (more - fewer) / count
    error = math.sqrt(max(0.0, fewer + more + 1 - (more - fewer) ** 2 / count)) / count
    reach = quantile(confidence) * error
    return max(-1.0, difference - reach), min(1.0, difference + reach)


def median(values: Floats, counts: Counts) -> float:
    """The lower median of values in order."""
    return float(values[_median_places(counts[None, :])[0]])


def median_interval(
    values: Floats, baseline: Counts, current: Counts, confidence: float, seed: Sequence[int]
) -> Interval:
    """A percentile interval of the difference of medians, tasks drawn again from both windows."""
    random = np.random.default_rng(seed)
    before, now = (
        values[_median_places(random.multinomial(count.sum(), count / count.sum(), size=RESAMPLES))]
        for count in (baseline, current)
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(now - before, [tail, 1 - tail])
    return float(low), float(high)


def _median_places(counts: Counts) -> Counts:
    """Where in each row half of its tasks are reached."""
    reached = np.cumsum(counts, axis=1)
    return np.asarray((2 * reached >= reached[:, -1:]).argmax(axis=1), dtype=np.int64)
