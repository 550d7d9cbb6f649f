"""How sure a share is that was counted in a sample."""

from dataclasses import dataclass
from math import sqrt
from typing import Final, Self

Z_95: Final = 1.959963984540054
"""The standard normal's 97.5 % quantile."""


@dataclass(frozen=True, slots=True)
class Share:
    """`hits` of `total`, with Wilson's score interval (no continuity correction) from `low` to `high`.

    Unlike the textbook's p ± z·s it stays between 0 and 1, and says something at 0 and at `total` too.
    """

    hits: int
    total: int
    low: float
    high: float

    @classmethod
    def of(cls, hits: int, total: int, *, z: float = Z_95) -> Self:
        """The interval that covers the true share with the probability that belongs to `z`, 95 % as it is.

        Raises `ValueError` unless 0 <= hits <= total and 0 < total.
        """
        if not 0 <= hits <= total or total == 0:
            raise ValueError(f"{hits} of {total} is no share")
        observed, square = hits / total, z * z
        centre = (observed + square / (2 * total)) / (1 + square / total)
        spread = observed * (1 - observed) / total + square / (4 * total * total)
        half = z * sqrt(spread) / (1 + square / total)
        low = 0.0 if hits == 0 else max(0.0, centre - half)
        high = 1.0 if hits == total else min(1.0, centre + half)
        return cls(hits, total, low, high)

    def __str__(self) -> str:
        share = self.hits / self.total
        return f"{self.hits}/{self.total} = {share:.0%} (95 % interval {self.low:.0%} to {self.high:.0%})"
