"""The tests of drift against published figures, and against chance."""

import numpy as np
import pytest

from distill.engine.drift.comparison import compare
from distill.engine.drift.statistics import (
    fisher_p,
    median,
    median_interval,
    newcombe,
    paired_interval,
    permutation_p,
    spread_p,
)
from distill.engine.inference import holm
from schemas.drift import DriftProfile
from schemas.replay import Window

SEED = (0, 1)


def counts(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(numbers, np.int64)


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        ((3, 1), (1, 3), 0.485714),  # Fisher's lady tasting tea, two-sided
        ((1, 9), (11, 3), 0.002759),  # studying men and women, of the article on the test
        ((8, 2), (1, 5), 0.034965),  # the example of scipy.stats.fisher_exact
        ((0, 10), (0, 7), 1.0),
    ],
)
def test_fisher(first: tuple[int, int], second: tuple[int, int], p: float) -> None:
    assert fisher_p(counts(*first), counts(*second)) == pytest.approx(p, abs=1e-6)


def test_holm_by_the_published_example() -> None:
    """Holm (1979) as in R's p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_newcombe_by_his_own_example() -> None:
    """Newcombe (1998), method 10, contrast (a): 56/70 less 48/80 is 0.2, from 0.0524 to 0.3339."""
    assert newcombe((48 / 80, 80), (56 / 70, 70), 0.95) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    low, high = newcombe((0.0, 10), (0.0, 10), 0.95)
    assert low < 0 < high


def test_paired_interval_holds_the_difference() -> None:
    low, high = paired_interval(5, 25, 100, 0.95)
    assert low < 0.2 < high
    assert low > 0.08
    assert paired_interval(0, 0, 100, 0.95)[0] < 0 < paired_interval(0, 0, 100, 0.95)[1]


def test_drawing_agrees_with_counting() -> None:
    """With a third value that nothing has, the drawn test is about the exact one of two."""
    baseline, current = counts(30, 1, 9), counts(20, 1, 19)
    drawn = permutation_p(np.array([0.0, 0.5, 1.0]), baseline, current, SEED)
    assert drawn == pytest.approx(fisher_p(counts(30, 10), counts(20, 20)), abs=0.02)
    assert spread_p(counts(10, 10, 10), counts(10, 10, 10), SEED) == 1
    assert spread_p(counts(30, 0, 0), counts(0, 20, 10), SEED) == pytest.approx(0.0001)


def test_a_mix_of_values_that_are_all_different_says_nothing() -> None:
    here, there = np.repeat([1, 0], 50), np.repeat([0, 1], 50)
    assert spread_p(here.astype(np.int64), there.astype(np.int64), SEED) == 1


def test_medians() -> None:
    values = np.array([1.0, 2.0, 10.0])
    assert median(values, counts(1, 2, 2)) == 2
    low, high = median_interval(values, counts(50, 0, 0), counts(0, 0, 50), 0.95, SEED)
    assert (low, high) == (9, 9)


def profile(random: np.random.Generator, tasks: int, rate: float, slower: float = 1.0) -> DriftProfile:
    """A window as chance makes it: four codes at a rate, and three numbers."""

    def split(share: float) -> list[tuple[float, int]]:
        having = int(random.binomial(tasks, share))
        return [(value, count) for value, count in ((0.0, tasks - having), (1.0, having)) if count]

    def numbers(by: float) -> list[tuple[float, int]]:
        values = np.round(random.lognormal(3, 0.5, tasks) * by, 0)
        different, times = np.unique(values, return_counts=True)
        return list(zip(different.tolist(), times.tolist(), strict=True))

    models = random.multinomial(tasks, [0.5, 0.3, 0.2])
    return DriftProfile(
        window=Window(name="w", count=tasks),
        latest=None,
        tasks=tasks,
        judged=tasks,
        inputs={"model": {f"m{at}": int(count) for at, count in enumerate(models) if count}},
        categories={"accepted": split(0.8)},
        findings={f"code.{at}": split(rate) for at in range(4)},
        numbers={"length": numbers(1.0), "latency": numbers(slower)},
        verdicts={},
    )


def found(baseline: DriftProfile, current: DriftProfile) -> set[str]:
    compared = compare(baseline, current, alpha=0.05, seed=0)
    return {one.metric for one in compared.outputs if one.drifted} | {
        one.property for one in compared.inputs if one.drifted
    }


def test_no_difference_is_seldom_taken_for_one() -> None:
    """Over all tests together: of 60 pairs of like windows three in the mean, here at most eight."""
    random = np.random.default_rng(11)
    wrong = sum(bool(found(profile(random, 80, 0.1), profile(random, 60, 0.1))) for _ in range(60))
    assert wrong <= 8


def test_a_difference_is_found() -> None:
    random = np.random.default_rng(12)
    for _ in range(10):
        before, now = profile(random, 400, 0.1), profile(random, 400, 0.3, slower=1.5)
        assert {"finding", "latency"} <= found(before, now)


def test_the_order_of_tests_and_the_other_tests_do_not_matter() -> None:
    random = np.random.default_rng(13)
    before, now = profile(random, 80, 0.1), profile(random, 60, 0.1)
    whole = {(one.metric, one.key): one for one in compare(before, now, alpha=0.05, seed=3).outputs}
    fewer = before.model_copy(update={"findings": {}}), now.model_copy(update={"findings": {}})
    for one in compare(*fewer, alpha=0.05, seed=3).outputs:
        assert one.interval == whole[one.metric, one.key].interval
