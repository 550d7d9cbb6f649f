"""The statistics against published figures and against scipy and statsmodels."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.proportion import proportion_confint

from distill.engine.compare import statistics
from distill.engine.compare.statistics import Groups
from distill.engine.inference import mcnemar, wilson

CONFIDENCES = (0.8, 0.9, 0.95, 0.99)


def tasks(*differences: int) -> Groups:
    """Groups of one task each that was done once."""
    return Groups.of([Fraction(one) for one in differences], [1] * len(differences))


def discordant(better: int, worse: int, same: int = 0) -> Groups:
    return tasks(*[1] * better, *[-1] * worse, *[0] * same)


# --- Wilson -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("passed", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
    ids=["81/263", "15/148", "0/20", "1/29"],
)
def test_wilson_gives_newcombes_published_intervals(passed: int, n: int, low: float, high: float) -> None:
    assert wilson(passed / n, n, 0.95) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("confidence", CONFIDENCES)
@pytest.mark.parametrize(("passed", "n"), [(0, 1), (1, 1), (3, 7), (500, 500), (123, 1000)])
def test_wilson_is_that_of_statsmodels(passed: int, n: int, confidence: float) -> None:
    theirs = proportion_confint(passed, n, alpha=1 - confidence, method="wilson")
    assert wilson(passed / n, n, confidence) == pytest.approx(theirs, abs=1e-12)


# --- McNemar and the signs of groups ------------------------------------------------------------


def test_mcnemar_gives_the_published_p_of_the_airway_data() -> None:
    # 21 children before and after a transplantation: 1 and 7 discordant; exact conditional p = 0.070.
    assert mcnemar(1, 7) == pytest.approx(0.0703, abs=5e-5)


@pytest.mark.parametrize(
    ("better", "worse"), [(0, 0), (1, 0), (0, 6), (1, 8), (5, 5), (6, 5), (30, 12), (86, 150), (700, 800)]
)
def test_mcnemar_is_that_of_scipy_and_statsmodels(better: int, worse: int) -> None:
    ours = mcnemar(better, worse)
    if better + worse:
        assert ours == pytest.approx(stats.binomtest(better, better + worse).pvalue, rel=1e-9)
        theirs = their_mcnemar([[10, better], [worse, 10]], exact=True).pvalue
        assert ours == pytest.approx(theirs, rel=1e-9)
    else:
        assert ours == 1


@pytest.mark.parametrize(
    ("better", "worse"), [(10_000, 10_300), (200_000, 201_001), (999_000, 1_001_000), (0, 1000), (3, 900)]
)
def test_mcnemar_stays_exact_for_as_many_as_there_may_be(better: int, worse: int) -> None:
    theirs = stats.binomtest(better, better + worse).pvalue
    assert mcnemar(better, worse) == pytest.approx(theirs, rel=1e-7)
    assert mcnemar(worse, better) == mcnemar(better, worse)


def test_mcnemar_of_what_cannot_be_chance_is_nothing() -> None:
    assert mcnemar(0, 100_000) == 0
    assert mcnemar(100_000, 100_000) == mcnemar(100_000, 100_001) == 1


def test_the_pairing_shows_what_an_unpaired_test_does_not_see() -> None:
    both, better, worse, neither = 110, 30, 12, 68
    n = both + better + worse + neither
    before, after = (both + worse) / n, (both + better) / n
    spread = before * (1 - before) / (n - 1) + after * (1 - after) / (n - 1)
    unpaired = 2 * stats.norm.sf(abs(after - before) / math.sqrt(spread))
    assert unpaired == pytest.approx(0.080, abs=5e-4)
    assert mcnemar(better, worse) == pytest.approx(0.008, abs=5e-4)
    assert statistics.sign_flip(discordant(better, worse, both + neither), 0) < 0.05


@given(better=st.integers(0, 60), worse=st.integers(0, 60), same=st.integers(0, 20))
@settings(max_examples=50, deadline=None)
def test_over_single_tasks_the_test_of_signs_is_mcnemars(better: int, worse: int, same: int) -> None:
    groups = discordant(better, worse, same + 1)
    assert statistics.sign_flip(groups, 0) == pytest.approx(mcnemar(better, worse), rel=1e-9)


@given(st.lists(st.fractions(-3, 3, max_denominator=4), min_size=2, max_size=9))
@settings(max_examples=40, deadline=None)
def test_the_test_of_signs_counts_all_signs(sums: list[Fraction]) -> None:
    groups = Groups.of(sums, [3] * len(sums))
    signs = (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1) * 2 - 1
    every = np.abs(signs @ groups.whole)
    counted = float(np.mean(every >= abs(int(groups.whole.sum()))))
    assert statistics.sign_flip(groups, 0) == pytest.approx(counted, rel=1e-9)


def test_the_test_of_signs_is_scipys_permutation_test() -> None:
    sums = [Fraction(one, 3) for one in (4, 2, 2, -1, 5, 3, -2, 1, 6, 1)]
    groups = Groups.of(sums, [3] * len(sums))
    theirs = stats.permutation_test(
        (groups.sums,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=False
    )
    assert statistics.sign_flip(groups, 0) == pytest.approx(theirs.pvalue, rel=1e-9)


def test_drawn_signs_come_close_to_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = Groups.of([Fraction(one, 7) for one in range(-10, 18)], [2] * 28)
    exact = statistics.sign_flip(groups, 0)
    monkeypatch.setattr(statistics, "EXACT_STEPS_MAX", 0)
    assert statistics.sign_flip(groups, 0) == pytest.approx(exact, abs=0.02)


def test_repeats_of_many_different_numbers_are_bounded() -> None:
    sums = [Fraction(number // 2, number) for number in range(2, 60)]
    groups = Groups.of(sums, [1] * len(sums))
    assert groups.difference == pytest.approx(float(sum(sums)) / len(sums))
    assert statistics.sign_flip(groups, 0) <= 1 / statistics.RESAMPLES


def test_a_thousand_repeats_of_one_task_are_one_task() -> None:
    assert statistics.sign_flip(Groups.of([Fraction(997, 1000)], [1]), 0) == 1


def test_large_comparisons_stay_exact() -> None:
    groups = discordant(5200, 4800)
    theirs = stats.binomtest(5200, 10_000).pvalue
    assert statistics.sign_flip(groups, 0) == pytest.approx(theirs, rel=1e-6)


# --- Student's t --------------------------------------------------------------------------------


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 10, 37, 200, 5001])
@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_students_quantiles_are_scipys(freedom: int, confidence: float) -> None:
    theirs = stats.t.ppf((1 + confidence) / 2, freedom)
    assert statistics.t_quantile(confidence, freedom) == pytest.approx(theirs, rel=1e-8)


# --- the bootstrap ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("better", "worse", "same"), [(30, 12, 178), (8, 3, 30), (0, 0, 100), (60, 40, 400), (6, 0, 20)]
)
def test_over_single_tasks_the_interval_is_bonett_and_prices(better: int, worse: int, same: int) -> None:
    n = better + worse + same
    up, down = (better + 1) / (n + 2), (worse + 1) / (n + 2)
    reach = stats.t.ppf(0.975, n - 1) * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    ours = statistics.bootstrap(discordant(better, worse, same), 0.95, 0)
    # A share of n tasks moves in steps of 1/n, and a draw of ten thousand has an error of its own.
    assert ours == pytest.approx((up - down - reach, up - down + reach), abs=1.5 / n)


def test_the_same_seed_gives_the_same_interval_and_another_hardly_another() -> None:
    groups = Groups.of([Fraction(one, 3) for one in (3, -1, 2, 0, 4, 1, -2, 5, 0, 1, 2, 3)], [3] * 12)
    once = statistics.bootstrap(groups, 0.95, 7)
    assert statistics.bootstrap(groups, 0.95, 7) == once
    assert statistics.bootstrap(groups, 0.95, 8) == pytest.approx(once, abs=0.03)


def test_where_nothing_differs_the_interval_still_has_a_length() -> None:
    few, many = (statistics.bootstrap(discordant(0, 0, n), 0.95, 0) for n in (3, 300))
    assert few[0] < -0.4
    assert few[1] > 0.4
    assert -0.03 < many[0] < 0 < many[1] < 0.03


def test_one_group_says_nothing() -> None:
    assert statistics.bootstrap(Groups.of([Fraction(50)], [50]), 0.95, 0) == (-1, 1)


def test_tasks_that_go_together_make_the_interval_longer() -> None:
    apart = Groups.of([Fraction(one) for one in [1] * 24 + [0] * 96], [1] * 120)
    together = Groups.of([Fraction(one) for one in [6] * 4 + [0] * 16], [6] * 20)
    short, long = (
        high - low for low, high in (statistics.bootstrap(one, 0.95, 0) for one in (apart, together))
    )
    assert long > 1.5 * short


def test_the_interval_of_a_median_is_scipys() -> None:
    values = np.round(np.random.default_rng(4).gamma(2, 50, size=150), 3)
    ours = statistics.median_interval(values, np.arange(150), 0.95, 0)
    theirs = stats.bootstrap(
        (values,), np.median, method="percentile", n_resamples=2000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=6)


def test_a_median_of_groups_moves_with_them() -> None:
    values = np.array([1.0] * 30 + [9.0] * 30)
    apart = statistics.median_interval(values, np.arange(60), 0.95, 0)
    together = statistics.median_interval(values, np.repeat(np.arange(6), 10), 0.95, 0)
    assert apart == together == pytest.approx((1, 9))
    skewed = np.array([1.0] * 45 + [9.0] * 15)
    assert statistics.median_interval(skewed, np.arange(60), 0.95, 0) == pytest.approx((1, 1))
    as_groups = statistics.median_interval(skewed, np.repeat(np.arange(4), 15), 0.95, 0)
    assert as_groups == pytest.approx((1, 9))


# --- how much the data carry --------------------------------------------------------------------


@pytest.mark.parametrize(("confidence", "least"), [(0.5, 2), (0.9, 5), (0.95, 6), (0.99, 8), (0.999, 11)])
def test_fewer_groups_than_this_can_never_be_called_no_accident(confidence: float, least: int) -> None:
    assert statistics.groups_min(confidence) == least
    assert mcnemar(least, 0) <= 1 - confidence + 1e-12
    assert mcnemar(least - 1, 0) > 1 - confidence


def test_the_error_between_groups_is_statsmodels_clustered_one() -> None:
    random = np.random.default_rng(3)
    sizes = random.integers(1, 9, size=25)
    labels = np.repeat(np.arange(25), sizes)
    values = random.normal(size=len(labels)) + random.normal(size=25)[labels]
    fitted = OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": labels})
    sums = np.bincount(labels, weights=values).astype(np.float64)
    ours = statistics._error(sums, sizes) / len(values)
    assert ours == pytest.approx(float(fitted.bse[0]), rel=1e-9)


def test_what_could_be_found_shrinks_with_the_number_of_tasks() -> None:
    found = [statistics.detectable(discordant(n // 5, n // 5, 3 * n // 5), 0.95) for n in (5, 50, 500, 5000)]
    assert found[0] is None
    assert found[1] is not None
    assert found == [None, *sorted(one for one in found[1:] if one is not None)[::-1]]
    assert found[2] == pytest.approx(2.8 * math.sqrt(0.4 / 500), rel=0.02)


def test_tasks_that_go_alike_are_worth_fewer() -> None:
    sizes = np.full(20, 5)
    alike = statistics.effective(np.array([5.0] * 10 + [0.0] * 10), sizes)
    mixed = statistics.effective(np.array([3.0, 2.0] * 10), sizes)
    assert alike == pytest.approx(19, abs=0.5)
    assert mixed == 100
    assert statistics.effective(np.full(20, 5.0), sizes) == 20
    assert statistics.effective(np.array([1.0, 0.0, 1.0]), np.ones(3, dtype=np.int64)) == 3
