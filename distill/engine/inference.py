"""What comparisons and drift infer alike: Wilson's interval, McNemar's test, Holm's correction for many."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Final

import numpy as np

Interval = tuple[float, float]

NORMAL: Final = NormalDist()


def quantile(confidence: float) -> float:
    """The normal quantile that a two-sided interval of this confidence reaches to."""
    return NORMAL.inv_cdf((1 + confidence) / 2)


def wilson(rate: float, n: float, confidence: float) -> Interval:
    """Wilson's interval of a rate over `n` independent trials. `n` may be an effective number of them."""
    z = quantile(confidence)
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # At a rate of 0 or 1 the bound is the rate itself; rounding must not move it beyond.
    return max(0.0, min(rate, middle - reach)), min(1.0, max(rate, middle + reach))


def mcnemar(better: int, worse: int) -> float:
    """The exact two-sided p of McNemar's test, from the numbers of pairs that differ in either direction."""
    n, least = better + worse, min(better, worse)
    # How likely each outcome is, from an even one down to none at all, beside the even one: as quotients of
    # neighbours, which neither overflow nor lose digits however large n is.
    fewer = np.arange(n // 2, 0, -1, dtype=np.float64)
    likely = np.cumprod(np.append(1.0, fewer / (n - fewer + 1)))
    middle = 1.0 if n % 2 == 0 else 0.0  # is its own mirror image
    return min(1.0, 2 * float(likely[n // 2 - least :].sum()) / (2 * float(likely.sum()) - middle))


def holm(ps: Sequence[float]) -> list[float]:
    """The p values as Holm corrects them: the chance of any false alarm among all tests stays below alpha."""
    adjusted = [0.0] * len(ps)
    least = 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=lambda at: ps[at])):
        least = max(least, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = least
    return adjusted
