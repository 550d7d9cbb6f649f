"""How often verdicts are right where the truth is known: tasks of all degrees of difficulty, alike in groups.

A task is passed when a draw falls below its ease. Tasks of a group share a part of their ease, and the arms
share what is a task's own; where they do not differ, both pass a task equally often.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray

from distill.engine.compare import statistics
from distill.engine.compare.pairing import Pairs, paired
from distill.engine.compare.verdict import judged
from distill.engine.inference import NORMAL
from schemas.comparison import Comparison
from schemas.replay import ReplayOutcome
from tests.unit.distill.compare.arms import FAILED, PASSED, TERMS, arm

pytestmark = pytest.mark.simulation

COMPARISONS: Final = 2000
POWER_COMPARISONS: Final = 500
INTERVALS: Final = 1000
WRONG_MAX: Final = 0.05
FOUND_MIN: Final = 0.90


@dataclass(frozen=True)
class World:
    """`group` tasks in each of `groups` groups, each done `repeats` times; `alike` from 0 to 1 is how much of
    what an arm makes of a task is decided by its group.
    """

    groups: int
    rate: float
    group: int = 1
    repeats: int = 1
    alike: float = 0.0

    @property
    def tasks(self) -> int:
        return self.groups * self.group

    def passes(
        self, rate: float, shared: NDArray[np.float64], random: np.random.Generator
    ) -> NDArray[np.bool_]:
        """Tasks by repeats. What a task and what a group is to this arm alone is drawn here."""
        own_group = np.repeat(random.standard_normal(self.groups), self.group)
        ease = shared + math.sqrt(self.alike) * own_group
        spread = math.sqrt(2 + self.alike)
        bar = NORMAL.inv_cdf(rate) * spread
        drawn: NDArray[np.bool_] = ease[:, None] + random.standard_normal((self.tasks, self.repeats)) < bar
        return drawn

    def pairs(self, difference: float, random: np.random.Generator) -> Pairs:
        shared = random.standard_normal(self.tasks)
        baseline, current = (
            arm(
                name,
                [outcomes(row) for row in self.passes(rate, shared, random)],
                group=self.name_of,
                latency_ms=None,
            )
            for name, rate in (("baseline", self.rate), ("current", self.rate + difference))
        )
        return paired(baseline, current, "own", "group")

    def name_of(self, number: int) -> str:
        return f"g{number // self.group}"


def outcomes(passed: NDArray[np.bool_]) -> list[ReplayOutcome]:
    return [PASSED if one else FAILED for one in passed.tolist()]


def compared(world: World, difference: float, random: np.random.Generator) -> Comparison:
    pairs = world.pairs(difference, random)
    baseline = arm("baseline", [])
    return judged("c", baseline, baseline, pairs, TERMS)


def verdicts(world: World, difference: float, count: int) -> Counter[str]:
    random = np.random.default_rng(2026)
    return Counter(compared(world, difference, random).verdict for _ in range(count))


NO_DIFFERENCE: Final = {
    "twenty tasks": World(groups=20, rate=0.7),
    "a hundred tasks": World(groups=100, rate=0.7),
    "five hundred tasks": World(groups=500, rate=0.5),
    "hardly ever failing": World(groups=200, rate=0.97),
    "three repeats": World(groups=60, rate=0.7, repeats=3),
    "groups that go alike": World(groups=40, rate=0.7, group=5, alike=1.0),
    "few large groups that go alike": World(groups=12, rate=0.6, group=15, alike=2.0),
    "groups and repeats": World(groups=40, rate=0.8, group=4, repeats=3, alike=1.0),
}


@pytest.mark.parametrize("world", NO_DIFFERENCE.values(), ids=NO_DIFFERENCE)
def test_where_there_is_no_difference_a_verdict_is_rare(world: World) -> None:
    came = verdicts(world, 0.0, COMPARISONS)
    wrong = 1 - came["no evidence"] / COMPARISONS
    print(f"\n{world}: {dict(came)}, wrong {wrong:.2%}")
    assert wrong <= WRONG_MAX


@pytest.mark.parametrize("rate", [0.3, 0.6, 0.7, 0.85])
@pytest.mark.parametrize("sign", [1, -1])
def test_ten_points_over_five_hundred_tasks_are_found(rate: float, sign: int) -> None:
    world = World(groups=500, rate=rate if sign == 1 else rate + 0.1)
    came = verdicts(world, 0.1 * sign, POWER_COMPARISONS)
    found = came["better" if sign == 1 else "worse"] / POWER_COMPARISONS
    print(f"\n{world}, {10 * sign:+d} points: {dict(came)}, found {found:.1%}")
    assert found >= FOUND_MIN
    assert came["worse" if sign == 1 else "better"] == 0


@pytest.mark.parametrize(
    ("world", "difference"),
    [
        (World(groups=15, rate=0.7), 0.0),
        (World(groups=100, rate=0.9), -0.05),
        (World(groups=500, rate=0.6), 0.1),
        (World(groups=40, rate=0.7, group=5, repeats=2, alike=1.0), 0.1),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(world: World, difference: float) -> None:
    random = np.random.default_rng(7)
    held = 0
    for _ in range(INTERVALS):
        low, high = compared(world, difference, random).quality.interval
        held += low <= difference <= high
    print(f"\n{world}, {difference:+.2f}: held {held / INTERVALS:.1%}")
    assert held / INTERVALS >= 0.93


def test_what_is_said_to_be_detectable_is_found_that_often() -> None:
    world, random = World(groups=300, rate=0.6), np.random.default_rng(3)
    detectable = compared(world, 0.0, random).quality.detectable
    assert detectable is not None
    came = verdicts(world, detectable, POWER_COMPARISONS)
    print(f"\n{detectable:.3f} detectable, found {came['better'] / POWER_COMPARISONS:.1%}")
    assert abs(came["better"] / POWER_COMPARISONS - statistics.POWER) < 0.08
