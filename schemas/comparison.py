"""What is said about a comparison of two replays of the same tasks."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from schemas.base import Measure, Model, Tally
from schemas.replay import ReplayId, ReplayOutcome

Share = Annotated[float, Field(ge=0, le=1)]
Points = Annotated[float, Field(ge=-1, le=1)]
"""A difference of two shares: 0.1 is ten percentage points."""

Counting = Literal["own", "any"]
Unit = Literal["group", "work"]
ComparisonVerdict = Literal["better", "worse", "no evidence"]


class ComparisonFields(Model):
    """What a comparison can be told. `baseline` and `current` are replays; the baseline `recorded` stands for
    the recorded answers to the tasks of `current`.

    With the counting `own` a task has passed when the first model passed by itself, with `any` also when a
    stronger one did. Tasks are independent of one another when they are of different groups, or, where asked
    for, of different pieces of work: then near duplicates of one another, such as all that came from one
    template, count one by one. Replays under different validator policies are compared only with
    `across_policies`, which asks what the change of the policy did.
    """

    baseline: ReplayId = "recorded"
    current: ReplayId | None = None
    confidence: Annotated[float, Field(ge=0.5, le=0.999)] = 0.95
    counting: Counting = "own"
    independent: Unit = "group"
    gate: Annotated[str, StringConstraints(max_length=100)] | None = None
    across_policies: bool = False


class Rate(Model):
    """A pass rate with Wilson's interval over `tasks_effective`, which is less than `tasks` where the tasks
    of a group went alike.
    """

    rate: Share
    interval: tuple[Share, Share]
    tasks_effective: Measure


class Arm(Model):
    """One side of the comparison, over the tasks that both have. `tasks` counts all that this one has.

    `outcomes` counts answers, each repeat by itself.
    """

    replay_id: str
    name: str
    tasks: Tally
    own: Rate
    any: Rate
    outcomes: dict[ReplayOutcome, Tally]
    repeats_max: Tally
    cost_usd: Measure | None


class Quality(Model):
    """The difference of pass rates, current less baseline, over tasks in both.

    `better` and `worse` count tasks, `groups_discordant` the groups that speak for one of the arms. `p` is of
    the exact test that changes the signs of whole groups; `mcnemar_p` that of McNemar's exact test, null
    where tasks are not independent or were repeated, since it would not hold. `detectable` is the least
    difference that would be found in 80 % of such comparisons, null where none could be.
    """

    tasks: Tally
    groups: Tally
    groups_discordant: Tally
    better: Tally
    worse: Tally
    difference: Points
    interval: tuple[Points, Points]
    p: Share
    mcnemar_p: Share | None
    detectable: Share | None


class RoleQuality(Model):
    """The tasks of one job role, or of none. The rates count as the comparison does.

    `p_corrected` is `quality.p` after Holm over all roles that are told, since of many roles one differs by
    chance. There is no verdict by role.
    """

    role: str | None
    baseline: Rate
    current: Rate
    quality: Quality
    p_corrected: Share


class MedianDifference(Model):
    """A measure beside quality: medians of the arms, and the median of the differences of the same tasks.

    `unknown` counts the tasks left out because one of the arms does not tell. `interval` is null with fewer
    groups than an interval of this confidence takes.
    """

    measure: Literal["latency_ms", "cost_usd"]
    tasks: Tally
    unknown: Tally
    baseline: Measure
    current: Measure
    difference: Measure
    interval: tuple[Measure, Measure] | None


class Change(Model):
    """One of the things that shape answers and verdicts, by its hash in both arms."""

    what: str
    baseline: str | None
    current: str | None
    changed: bool


class DiscordantTask(Model):
    """A task that the arms did differently; shares are those of its repeats that passed."""

    evidence_id: str
    group: str
    kind: str | None
    role: str | None
    baseline: Share
    current: Share
    baseline_codes: list[str]
    current_codes: list[str]


class GateResult(Model):
    """What was demanded, and whether it is so."""

    gate: str
    passed: bool
    reason: str


class Comparison(Model):
    """Two replays compared task by task. `reason` says why the verdict is what it is.

    `roles` tells job roles apart where there are several, those with the most tasks first. `better` and
    `worse` name the discordant tasks, `only_baseline` and `only_current` those that one arm alone has, up to
    `listed_max` each; the counts in `quality` and `counts` are whole. `notes` are what the reader has to bear
    in mind. `files` lie under `/v1/distill/comparisons/{comparison_id}/files/`.
    """

    comparison_id: str
    verdict: ComparisonVerdict
    reason: str
    confidence: Share
    counting: Counting
    independent: Unit
    seed: Tally
    resamples: Tally
    baseline: Arm
    current: Arm
    quality: Quality
    roles: list[RoleQuality] = []
    measures: list[MedianDifference]
    changes: list[Change]
    notes: list[str]
    gate: GateResult | None = None
    counts: dict[str, Tally]
    better: list[DiscordantTask]
    worse: list[DiscordantTask]
    only_baseline: list[str]
    only_current: list[str]
    listed_max: Tally
