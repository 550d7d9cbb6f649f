"""Krippendorff's alpha against published examples, and against the definition in words."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.engine.review.agreement import reliability

MISSING = "."


def units(*observers: str) -> list[list[str]]:
    """The values that each unit got; an observer's values are one character each."""
    return [[value for value in unit if value != MISSING] for unit in zip(*observers, strict=True)]


@pytest.mark.parametrize(
    ("observers", "alpha"),
    [
        # Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability": A, B and C
        (("0100000010", "1110010000"), 0.095),
        (("aabbdcccedda", "babbbccceddd"), 0.692),
        (("123321412...", "1233224125.3", ".3332342251.", "12332441251."), 0.743),
        # the example with three coders in the encyclopedia's article on the coefficient
        (
            (".....34121133.3", "1.213343.......", "..21344.21133.4"),
            0.691,
        ),
    ],
)
def test_published_examples_come_out(observers: tuple[str, ...], alpha: float) -> None:
    found = reliability(units(*observers)).alpha
    assert found == pytest.approx(alpha, abs=0.0005)


def test_where_nothing_can_be_compared_there_is_no_alpha() -> None:
    found = reliability([["accept"], [], ["reject"]])
    assert (found.alpha, found.undefined, found.observed) == (None, "no_pairs", None)


def test_where_all_say_the_same_of_everything_there_is_no_alpha() -> None:
    found = reliability([["accept", "accept"], ["accept", "accept", "accept"]])
    assert (found.alpha, found.undefined, found.observed) == (None, "no_variation", 1.0)
    assert (found.units, found.values) == (2, 5)


decided = st.lists(st.lists(st.sampled_from(["accept", "reject", "correct"]), max_size=4), max_size=12)


@given(decided)
def test_alpha_is_one_less_the_observed_over_the_expected_disagreement(given_units: list[list[str]]) -> None:
    found = reliability(given_units)
    pairable = [unit for unit in given_units if len(unit) > 1]
    values = [value for unit in pairable for value in unit]
    weights = [
        (1 / (len(unit) - 1), one != other)
        for unit in pairable
        for one, other in itertools.permutations(unit, 2)
    ]
    observed = sum(weight for weight, differs in weights if differs) / max(1, len(values))
    pairs = list(itertools.permutations(values, 2))
    expected = sum(one != other for one, other in pairs) / max(1, len(pairs))
    assert found.units == len(pairable)
    if not expected:
        assert found.alpha is None
    else:
        assert found.alpha == pytest.approx(1 - observed / expected)


@given(decided)
def test_the_order_of_units_and_of_reviewers_does_not_matter(given_units: list[list[str]]) -> None:
    shuffled = [sorted(unit) for unit in reversed(given_units)]
    one, other = reliability(given_units), reliability(shuffled)
    assert (one.units, one.values, one.undefined) == (other.units, other.values, other.undefined)
    assert one.alpha == (pytest.approx(other.alpha) if other.alpha is not None else None)
