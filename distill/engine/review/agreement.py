"""How far reviewers agree beyond chance: Krippendorff's alpha for names, with missing data."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Undefined = Literal["no_pairs", "no_variation"]


@dataclass(frozen=True, slots=True)
class Reliability:
    """`alpha` is 1 for full agreement and 0 for what chance gives; None where it is not defined, for the
    reason in `undefined`: no unit has two values, or all values that can be paired are the same.

    `units` and `values` count what could be paired, `observed` is the share of pairs that agree.
    """

    alpha: float | None
    undefined: Undefined | None
    observed: float | None
    units: int
    values: int


def reliability(units: Iterable[Sequence[Hashable]]) -> Reliability:
    """Agreement on units, each given as the values that it got. A unit with one value pairs with nothing.

    With the coincidences of Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability": each ordered
    pair of values of a unit weighs 1 / (values of the unit - 1).
    """
    totals: Counter[Hashable] = Counter()
    agreeing = 0.0
    paired = 0
    for unit in units:
        if len(unit) < 2:
            continue
        paired += 1
        counts = Counter(unit)
        totals += counts
        agreeing += sum(count * (count - 1) for count in counts.values()) / (len(unit) - 1)
    values = totals.total()
    if not values:
        return Reliability(None, "no_pairs", None, 0, 0)
    observed = agreeing / values
    if len(totals) == 1:
        return Reliability(None, "no_variation", observed, paired, values)
    expected = sum(count * (count - 1) for count in totals.values()) / (values * (values - 1))
    return Reliability(1 - (1 - observed) / (1 - expected), None, observed, paired, values)
