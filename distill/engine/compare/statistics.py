"""The statistics of a paired comparison: small, exact where that is possible, and seeded where it is not.

Shapes: a *group* is a set of tasks that are not independent of one another. `sums` has for each group the sum
of its tasks' differences (current less baseline), `sizes` the number of its tasks; groups are independent.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from distill.engine.inference import NORMAL, Interval, quantile

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RESAMPLES: Final = 10_000
MEDIAN_RESAMPLES: Final = 2_000
"""Fewer, since each costs a pass over all tasks."""
POWER: Final = 0.8
"""How often a difference of the minimum detectable size would be found."""
EXACT_STEPS_MAX: Final = 500_000_000
"""Additions that an exact distribution may cost, about half a second; beyond it signs are drawn."""
CELLS_AT_ONCE: Final = 4_000_000
"""Numbers in an array that is as large as it likes."""
SCALE_MAX: Final = 1 << 32
"""Finest step of a sum. Repeats of many different numbers would ask for a finer one than integers hold."""


@dataclass(frozen=True, slots=True)
class Groups:
    """The differences of all groups. `scale` makes the sums whole numbers: `sums` are `whole / scale`."""

    whole: Ints
    scale: int
    sizes: Ints

    @classmethod
    def of(cls, sums: list[Fraction], sizes: list[int]) -> "Groups":
        scale = min(math.lcm(*(one.denominator for one in sums)), SCALE_MAX)
        whole = [round(one * scale) for one in sums]
        return cls(np.array(whole, dtype=np.int64), scale, np.array(sizes, dtype=np.int64))

    @property
    def sums(self) -> Floats:
        return self.whole / self.scale

    @property
    def difference(self) -> float:
        """The mean difference of a task."""
        return float(self.whole.sum() / (self.scale * self.sizes.sum()))

    @property
    def discordant(self) -> int:
        """Groups that speak for one of the arms."""
        return int(np.count_nonzero(self.whole))


def sign_flip(groups: Groups, seed: int) -> float:
    """The two-sided p of the sum of differences, were each group's sign as likely to be the other one.

    That is what no difference between the arms means, however alike the tasks of a group are. Where every
    group is one task that was done once, it is McNemar's exact test.
    """
    sizes, counts = np.unique(np.abs(groups.whole[groups.whole != 0]), return_counts=True)
    observed, total = abs(int(groups.whole.sum())), int((sizes * counts).sum())
    if int(counts.sum()) * total > EXACT_STEPS_MAX or total > CELLS_AT_ONCE:
        return _sign_flip_drawn(groups.whole, observed, seed)
    positive = np.ones(1)  # probabilities of the sum of the groups with a plus, in whole steps
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        wider = np.zeros(len(positive) + size * count)
        for number, probability in enumerate(_halves(count)):
            wider[number * size : number * size + len(positive)] += probability * positive
        positive = wider
    distance = np.abs(2 * np.arange(total + 1) - total)
    return min(1.0, float(positive[distance >= observed].sum()))


def _halves(n: int) -> Iterator[float]:
    """The probabilities of 0 to n heads in n throws, each rounded once."""
    ways, all_ways = 1, 1 << n
    for heads in range(n + 1):
        yield ways / all_ways
        ways = ways * (n - heads) // (heads + 1)


def _sign_flip_drawn(whole: Ints, observed: int, seed: int) -> float:
    """The same by drawing signs. Counting the observation itself keeps the test valid."""
    random = np.random.default_rng(seed)
    beyond = 0
    for rows in _chunks(RESAMPLES, len(whole)):
        signs = random.integers(0, 2, size=(rows, len(whole)), dtype=np.int8) * 2 - 1
        beyond += int(np.count_nonzero(np.abs(signs @ whole) >= observed))
    return (1 + beyond) / (1 + RESAMPLES)


def _chunks(rows: int, columns: int) -> Iterator[int]:
    """Numbers of rows that add up to `rows`, such that no table of them is too large for memory."""
    most = max(1, CELLS_AT_ONCE // max(columns, 1))
    for start in range(0, rows, most):
        yield min(most, rows - start)


# --- intervals ----------------------------------------------------------------------------------


def bootstrap(groups: Groups, confidence: float, seed: int) -> Interval:
    """An interval of the mean difference of a task: whole groups are drawn again, tasks stay with theirs.

    A plain percentile interval is too short where groups are few, and of no length where no group differs.
    So one group more speaks for each arm, of the usual size and of a size of difference that is typical of
    those that differ (Bonett and Price's pseudo-observations, carried over to groups), and the percentiles
    are those of Student's t (Hesterberg's expanded percentiles). BCa was worse where it matters; ADR 0021.
    """
    if len(groups.whole) < 2:
        return -1.0, 1.0
    differences, sizes, counts = _kinds(groups)
    count = int(counts.sum())
    means = []
    random = np.random.default_rng(seed)
    for rows in _chunks(RESAMPLES, len(counts)):
        drawn = random.multinomial(count, counts / count, size=rows)
        means.append((drawn @ differences) / (drawn @ sizes))
    low = _expanded_tail(len(groups.whole), confidence)
    ends = np.quantile(np.concatenate(means), [low, 1 - low])
    return max(-1.0, float(ends[0])), min(1.0, float(ends[1]))


def _kinds(groups: Groups) -> tuple[Floats, Floats, Ints]:
    """The different groups, pseudo-groups among them, as sum, size and how many there are of each.

    Drawing how many of each kind come up is drawing groups, at the cost of the kinds.
    """
    usual = float(groups.sizes.mean())
    pseudo = usual * _typical(groups)
    rows = np.column_stack(
        [
            np.append(groups.sums, [pseudo, -pseudo]),
            np.append(groups.sizes.astype(np.float64), [usual, usual]),
        ]
    )
    kinds, counts = np.unique(rows, axis=0, return_counts=True)
    return kinds[:, 0], kinds[:, 1], counts.astype(np.int64)


def _typical(groups: Groups) -> float:
    """By how much of itself a group differs that does, as a root mean square.

    One that differs wholly counts in, so that it is 1, the worst there could be, where nothing differs.
    """
    shares = (groups.sums / groups.sizes)[groups.whole != 0]
    return math.sqrt((float(shares @ shares) + 1) / (len(shares) + 1))


def _expanded_tail(count: int, confidence: float) -> float:
    """The probability below a percentile interval whose reach is that of Student's t over `count` groups."""
    return NORMAL.cdf(-math.sqrt(count / (count - 1)) * t_quantile(confidence, count - 1))


def t_quantile(confidence: float, freedom: int) -> float:
    """Student's quantile that a two-sided interval of this confidence reaches to."""
    low, high = 0.0, quantile(confidence)
    while _t_within(high, freedom) < confidence:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_within(middle, freedom) < confidence else (low, middle)
    return high


def _t_within(t: float, freedom: int) -> float:
    """The probability that Student's t is within ±t: the finite series for whole degrees of freedom."""
    angle = math.atan(t / math.sqrt(freedom))
    square = math.cos(angle) ** 2
    if freedom % 2:
        steps = np.arange(2, freedom - 2, 2)
        terms = np.cumprod(np.append(1.0, steps / (steps + 1) * square)) if freedom > 1 else np.zeros(1)
        return 2 / math.pi * (angle + math.sin(angle) * math.cos(angle) * float(terms.sum()))
    steps = np.arange(1, freedom - 2, 2)
    terms = np.cumprod(np.append(1.0, steps / (steps + 1) * square))
    return math.sin(angle) * float(terms.sum())


def median_interval(values: Floats, labels: Ints, confidence: float, seed: int) -> Interval:
    """A percentile interval of the median, whole groups drawn again. `labels` count the groups from 0."""
    order = np.argsort(values, kind="stable")
    ordered, of_group = values[order], labels[order]
    count = int(labels.max()) + 1
    random = np.random.default_rng(seed)
    medians = []
    for rows in _chunks(MEDIAN_RESAMPLES, max(count, len(values))):
        drawn = random.multinomial(count, np.full(count, 1 / count), size=rows)
        reached = np.cumsum(drawn[:, of_group], axis=1)
        places = (2 * reached >= reached[:, -1:]).argmax(axis=1)
        medians.append(ordered[places])
    tail = (1 - confidence) / 2
    ends = np.quantile(np.concatenate(medians), [tail, 1 - tail])
    return float(ends[0]), float(ends[1])


# --- how much the data carry --------------------------------------------------------------------


def groups_min(confidence: float) -> int:
    """How many groups must differ, all one way, before the signs alone could be called no accident."""
    alpha = 1 - confidence
    return max(1, math.ceil(1 - math.log2(alpha) - 1e-9))


def detectable(groups: Groups, confidence: float) -> float | None:
    """The least mean difference that would be found in `POWER` of such comparisons, or None: not even 1."""
    least = groups_min(confidence) / len(groups.whole)
    if least > 1:
        return None
    reach = (quantile(confidence) + NORMAL.inv_cdf(POWER)) * _error(groups.sums, groups.sizes)
    found = max(least, reach / float(groups.sizes.sum()))
    return found if found <= 1 else None


def effective(rates: Floats, sizes: Ints) -> float:
    """How many independent tasks are worth as much as these. `rates` has each group's sum of passes.

    Never more than there are, however often each was repeated; as many as there are groups where all passed
    or all failed, since then nothing shows how alike the tasks of a group are.
    """
    tasks, rate = int(sizes.sum()), float(rates.sum() / sizes.sum())
    if len(sizes) == tasks:
        return float(tasks)
    spread = tasks * rate * (1 - rate)
    error = _error(rates, sizes) if len(sizes) > 1 else 0.0
    if spread <= 0 or error <= 0:
        return float(len(sizes))
    return min(float(tasks), tasks * spread / error**2)


def _error(sums: Floats, sizes: Ints) -> float:
    """The standard error of the sum over all tasks, by the spread between groups."""
    count = len(sums)
    apart = sums - sums.sum() / sizes.sum() * sizes
    return math.sqrt(count / (count - 1) * float(apart @ apart))
