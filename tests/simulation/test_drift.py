"""How often drift is seen where there is none, and where there is: tasks that are done several times.

What a task is worth is drawn once for each window; its attempts share it, as attempts at one order do.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pytest

from distill.engine import partindex
from distill.engine.columns import CODE, ROW
from distill.engine.drift import statistics
from distill.engine.drift.comparison import compare
from distill.engine.drift.profile import Evidence, profile_of
from schemas.drift import DriftProfile
from schemas.replay import Window

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(1800)]

COMPARISONS: Final = 500
POWER_COMPARISONS: Final = 100
DRAWS: Final = 1999
"""Fewer than in earnest, which makes a test coarser and no less true."""
ALPHA: Final = 0.05
CODES: Final = 5
WORDS: Final = ["", "a/1", "a/2", "b/1", *(f"code.{number}" for number in range(CODES))]


@dataclass(frozen=True)
class World:
    """Windows of `tasks` tasks with one to `attempts` attempts each; `rate` is how often a code is found."""

    tasks: int
    attempts: int = 1
    rate: float = 0.1
    slower: float = 1.0

    def window(self, random: np.random.Generator) -> DriftProfile:
        times = random.integers(1, self.attempts + 1, self.tasks)
        task = np.repeat(np.arange(self.tasks), times)
        rows = np.zeros(len(task), ROW)
        rows["id"] = np.frombuffer(random.bytes(32 * len(task)), "V32")
        rows["group"] = rows["task"] = random.integers(1, 1 << 62, self.tasks)[task]
        rows["ts"] = np.arange(len(task))
        rows["first"] = True
        rows["model"] = random.choice([1, 2, 3], self.tasks, p=[0.6, 0.3, 0.1])[task]
        ease = random.beta(2 * self.rate, 2 * (1 - self.rate), (self.tasks, CODES))
        found = random.random((len(task), CODES)) < ease[task]
        refused = found.any(axis=1)
        rows["category"] = np.where(refused, 2, 0)
        rows["verdict"] = np.where(refused, partindex.OTHER_VERDICT, partindex.ACCEPTED)
        usual = random.lognormal(6, 0.5, self.tasks)[task]
        rows["latency"] = usual * random.lognormal(0, 0.2, len(task)) * self.slower
        rows["length"] = np.round(random.lognormal(5, 0.7, self.tasks))[task]
        rows["cost"] = np.nan
        row, code = np.nonzero(found)
        codes = np.zeros(len(row), CODE)
        codes["row"], codes["code"] = row, code + len(WORDS) - CODES
        return profile_of(Evidence(rows, codes, WORDS), rows["first"], Window(name="w", count=len(task)))


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "DRAWS", DRAWS)


def found(before: DriftProfile, now: DriftProfile) -> set[str]:
    compared = compare(before, now, alpha=ALPHA, seed=0)
    outputs = {one.metric for one in compared.outputs if one.drifted}
    return outputs | {one.property for one in compared.inputs if one.drifted}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (World(60), World(60)),
        (World(400), World(40)),
        (World(60, attempts=8), World(150, attempts=2)),
        (World(300, rate=0.01), World(30, rate=0.01)),
    ],
    ids=["small", "unequal", "done again and again", "rare codes"],
)
def test_false_alarms_are_as_rare_as_promised(first: World, second: World) -> None:
    random = np.random.default_rng(5)
    wrong = sum(bool(found(first.window(random), second.window(random))) for _ in range(COMPARISONS))
    print(f"\n{first} and {second}: {wrong} false alarms in {COMPARISONS}")
    assert wrong <= ALPHA * COMPARISONS


def test_what_differs_is_found() -> None:
    random = np.random.default_rng(6)
    before, now = World(500, attempts=3), World(500, attempts=3, rate=0.2, slower=1.2)
    seen = [found(before.window(random), now.window(random)) for _ in range(POWER_COMPARISONS)]
    shares = {name: sum(name in one for one in seen) / len(seen) for name in ("finding", "latency", "model")}
    print(f"\nfound: {shares}")
    assert shares["finding"] >= 0.9
    assert shares["latency"] >= 0.9
    assert shares["model"] <= ALPHA
