"""What is said of two arms, and what is not."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.engine.compare.pairing import paired
from distill.engine.compare.results import ArmResults
from distill.engine.compare.verdict import LISTED_MAX, ROLES_MAX, Terms, judged
from schemas.comparison import Comparison
from schemas.replay import ReplayOutcome
from services.errors import Conflict
from tests.unit.distill.compare.arms import FAILED, PASSED, TERMS, arm, arms_of_table, own_group, passing

OUTCOMES = st.sampled_from(["local_pass", "local_repaired", "escalated_pass", "failed"])


def compared(baseline: ArmResults, current: ArmResults, terms: Terms = TERMS) -> Comparison:
    return judged("c", baseline, current, paired(baseline, current, terms.counting, terms.independent), terms)


def in_fives(number: int) -> str:
    return f"g{number // 5}"


def test_a_clear_gain_is_better_and_turned_round_worse() -> None:
    baseline, current = arms_of_table(both=110, better=30, worse=12, neither=68)
    made = compared(baseline, current)
    assert made.verdict == "better"
    assert made.quality.difference == pytest.approx(18 / 220)
    assert made.quality.mcnemar_p == pytest.approx(made.quality.p)
    assert (made.quality.better, made.quality.worse) == (30, 12)
    assert compared(current, baseline).verdict == "worse"


def test_the_same_answers_are_no_evidence() -> None:
    baseline, current = arms_of_table(both=150, better=0, worse=0, neither=50)
    made = compared(baseline, current)
    assert made.verdict == "no evidence"
    assert made.quality.p == 1
    assert made.quality.interval[0] < 0 < made.quality.interval[1]


def test_five_tasks_that_all_went_better_are_too_few() -> None:
    baseline, current = arms_of_table(both=0, better=5, worse=0, neither=0)
    made = compared(baseline, current)
    assert made.verdict == "no evidence"
    assert "no fewer than 6" in made.reason
    assert made.quality.detectable is None


def test_tasks_of_one_group_do_not_count_as_many() -> None:
    """Twenty tasks better would be overwhelming; as four groups they are nothing."""
    outcomes = passing((20, FAILED), (100, PASSED))
    better = passing((120, PASSED))
    alone = compared(arm("a", outcomes), arm("b", better))
    grouped = compared(arm("a", outcomes, group=in_fives), arm("b", better, group=in_fives))
    assert alone.verdict == "better"
    assert grouped.verdict == "no evidence"
    assert grouped.quality.groups == 24
    assert grouped.quality.groups_discordant == 4
    assert grouped.quality.mcnemar_p is None
    assert grouped.baseline.own.tasks_effective < 120
    assert any("independent groups" in note for note in grouped.notes)


def test_pieces_of_work_count_one_by_one_where_asked() -> None:
    baseline = arm("a", passing((20, FAILED), (100, PASSED)), group=in_fives)
    current = arm("b", passing((120, PASSED)), group=in_fives)
    made = compared(baseline, current, replace(TERMS, independent="work"))
    assert made.verdict == "better"
    assert made.quality.groups == 120
    assert made.quality.mcnemar_p is not None
    assert any("other templates" in note for note in made.notes)
    assert any("120 pieces of work" in note for note in compared(baseline, current).notes)


def test_groups_are_joined_where_either_arm_says_so() -> None:
    tasks = passing((12, PASSED))
    made = compared(
        arm("a", tasks, group=lambda n: f"x{n // 2}"), arm("b", tasks, group=lambda n: f"y{n // 3}")
    )
    assert made.quality.groups == 2  # halves and thirds together leave runs of six


def test_repeats_make_no_evidence_of_their_own() -> None:
    """Five tasks, a hundred times each: still five tasks."""
    baseline = arm("a", [(FAILED,) * 100] * 5)
    current = arm("b", [(PASSED,) * 100] * 5)
    made = compared(baseline, current)
    assert made.verdict == "no evidence"
    assert made.current.repeats_max == 100
    assert made.quality.mcnemar_p is None
    assert any("repeats are averaged" in note for note in made.notes)


def test_repeats_are_averaged_within_a_task() -> None:
    baseline = arm("a", [(PASSED, FAILED, FAILED, FAILED)] * 2)
    current = arm("b", [(PASSED, PASSED), (PASSED, FAILED)])
    made = compared(baseline, current)
    assert made.baseline.own.rate == 0.25
    assert made.current.own.rate == 0.75
    assert made.quality.difference == pytest.approx(0.5)


def test_escalated_answers_count_only_where_asked() -> None:
    baseline = arm("a", passing((30, FAILED), (30, PASSED)))
    current = arm("b", passing((30, "escalated_pass"), (30, PASSED)))
    own, other = (compared(baseline, current, replace(TERMS, counting=way)) for way in ("own", "any"))
    assert own.quality.difference == 0
    assert other.quality.difference == pytest.approx(0.5)
    for made in (own, other):
        assert (made.current.own.rate, made.current.any.rate) == (0.5, 1)


def test_tasks_of_one_arm_alone_are_counted_and_named() -> None:
    made = compared(arm("a", passing((20, PASSED))), arm("b", passing((25, PASSED)), first=10))
    assert made.counts == {"in": 35, "paired": 10, "only_baseline": 10, "only_current": 15}
    assert len(made.only_baseline) == 10
    assert len(made.only_current) == 15
    assert sum("alone" in note for note in made.notes) == 2


def test_roles_are_told_apart_without_a_verdict_by_role() -> None:
    """The welders got better, and everybody else as before: `p` by role is corrected for three looks."""

    def role(number: int) -> str | None:
        return "welder" if number < 40 else "forklift" if number < 100 else None

    baseline = arm("a", passing((40, FAILED), (80, PASSED)), role=role)
    current = arm("b", passing((10, PASSED), (30, FAILED), (80, PASSED)), role=role)
    made = compared(baseline, current)
    forklift, welder, nobody = made.roles
    assert (forklift.role, welder.role, nobody.role) == ("forklift", "welder", None)
    assert [part.quality.tasks for part in made.roles] == [60, 40, 20]
    assert welder.quality.difference == pytest.approx(10 / 40)
    assert welder.current.rate == pytest.approx(10 / 40)
    assert welder.quality.p == pytest.approx(2 / 2**10)
    assert welder.p_corrected == pytest.approx(6 / 2**10)
    assert forklift.quality.difference == nobody.quality.difference == 0
    assert sum(part.quality.better for part in made.roles) == made.quality.better == 10


def test_a_group_of_two_roles_is_one_group_in_each() -> None:
    def role(number: int) -> str:
        return "welder" if number % 2 else "forklift"

    baseline = arm("a", passing((20, FAILED)), group=in_fives, role=role)
    made = compared(baseline, arm("b", passing((20, PASSED)), group=in_fives, role=role))
    assert made.quality.groups == 4
    assert [(part.role, part.quality.tasks, part.quality.groups) for part in made.roles] == [
        ("forklift", 10, 4),
        ("welder", 10, 4),
    ]


def test_where_all_are_of_one_role_nothing_is_said_twice() -> None:
    assert compared(*arms_of_table(both=5, better=3, worse=2, neither=5)).roles == []


def test_of_very_many_roles_those_with_the_most_tasks_are_told() -> None:
    outcomes = passing((ROLES_MAX + 10, PASSED))
    baseline, current = (arm(name, outcomes, role=lambda number: f"r{min(number, 55)}") for name in "ab")
    made = compared(baseline, current)
    assert len(made.roles) == ROLES_MAX
    assert made.roles[0].role == "r55"
    assert any(f"the {ROLES_MAX} with the most tasks" in note for note in made.notes)


def test_lists_are_bounded_and_counts_are_not() -> None:
    count = LISTED_MAX + 10
    made = compared(arm("a", passing((count, FAILED))), arm("b", passing((count, PASSED))))
    assert len(made.better) == LISTED_MAX
    assert made.quality.better == count


def test_what_a_replay_left_out_is_said() -> None:
    baseline = arm("a", passing((10, PASSED)))
    current = replace(arm("b", passing((10, PASSED))), left_out={"budget": 3})
    assert any("budget 3" in note for note in compared(baseline, current).notes)


def test_nothing_in_common_is_refused() -> None:
    with pytest.raises(Conflict, match="no task in common"):
        compared(arm("a", passing((5, PASSED))), arm("b", passing((5, PASSED)), first=5))


def test_different_policies_are_refused_until_that_is_the_question() -> None:
    baseline = arm("a", passing((50, PASSED)))
    current = arm("b", passing((30, PASSED), (20, FAILED)), policy="other")
    with pytest.raises(Conflict, match="replay the baseline again") as refused:
        compared(baseline, current)
    assert refused.value.code == "policies_differ"
    made = compared(baseline, current, replace(TERMS, across_policies=True))
    assert made.verdict == "worse"
    assert [change.what for change in made.changes if change.changed] == ["policy"]
    assert any("different validator policies" in note for note in made.notes)


def test_time_is_compared_task_by_task() -> None:
    baseline = arm("a", passing((40, PASSED)), latency_ms=250.0)
    current = arm("b", passing((40, PASSED)), latency_ms=100.0)
    (latency,) = compared(baseline, current).measures
    assert (latency.measure, latency.difference, latency.interval) == ("latency_ms", -150, (-150, -150))
    assert (
        compared(arm("a", passing((5, PASSED))), arm("b", passing((5, PASSED)))).measures[0].interval is None
    )


def test_unknown_times_are_counted_not_guessed() -> None:
    current = arm("b", passing((40, PASSED)))
    halves = {
        key: replace(result, latency_ms=None if number % 2 else 100.0)
        for number, (key, result) in enumerate(current.results.items())
    }
    made = compared(arm("a", passing((40, PASSED))), replace(current, results=halves))
    assert (made.measures[0].tasks, made.measures[0].unknown) == (20, 20)
    assert made.baseline.cost_usd is None


@given(
    st.lists(
        st.tuples(st.lists(OUTCOMES, min_size=1, max_size=3), st.lists(OUTCOMES, min_size=1, max_size=3)),
        min_size=1,
        max_size=40,
    ),
    st.integers(1, 6),
)
@settings(max_examples=25, deadline=None)
def test_turning_the_arms_round_turns_the_signs_round(
    tasks: list[tuple[list[ReplayOutcome], list[ReplayOutcome]]], size: int
) -> None:
    group: Callable[[int], str] = (lambda n: f"g{n // size}") if size > 1 else own_group
    one = arm("a", [old for old, _ in tasks], group=group, latency_ms=None)
    other = arm("b", [new for _, new in tasks], group=group, latency_ms=None)
    forth, back = compared(one, other), compared(other, one)
    assert forth.quality.difference == pytest.approx(-back.quality.difference)
    assert forth.quality.p == pytest.approx(back.quality.p)
    assert (forth.quality.better, forth.quality.worse) == (back.quality.worse, back.quality.better)
    turned = {"better": "worse", "worse": "better", "no evidence": "no evidence"}
    assert forth.verdict == turned[back.verdict] or "no evidence" in {forth.verdict, back.verdict}
    low, high = forth.quality.interval
    assert -1 <= low <= high <= 1


def test_verdicts_are_seldom_wrong_where_there_is_no_difference() -> None:
    """A small size of what `make simulation` does at full size."""
    chance = random.Random(5)
    wrong = 0
    for _ in range(150):
        ease = [chance.random() for _ in range(60)]
        baseline, current = (
            arm(
                name,
                [PASSED if chance.random() < one else FAILED for one in ease],
                group=lambda n: f"g{n // 2}",
                latency_ms=None,
            )
            for name in "ab"
        )
        wrong += compared(baseline, current).verdict != "no evidence"
    assert wrong <= 8
