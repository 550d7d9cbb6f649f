"""The comparison itself: two arms in, everything that may be said of their difference out, and no more."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from distill.engine.compare import statistics
from distill.engine.compare.gate import Gate
from distill.engine.compare.pairing import Pair, Pairs
from distill.engine.compare.results import FINGERPRINTS, ArmResults, TaskResult
from distill.engine.inference import holm, mcnemar, wilson
from schemas.comparison import (
    Arm,
    Change,
    Comparison,
    ComparisonVerdict,
    Counting,
    DiscordantTask,
    GateResult,
    MedianDifference,
    Quality,
    Rate,
    RoleQuality,
    Unit,
)
from services.errors import Conflict

LISTED_MAX: Final = 1000
"""Tasks named in one list of a comparison."""
ROLES_MAX: Final = 50
"""Job roles that are told apart, those with the most tasks."""
MEASURES: Final[tuple[Literal["latency_ms", "cost_usd"], ...]] = ("latency_ms", "cost_usd")


@dataclass(frozen=True, slots=True)
class Terms:
    """By which terms two arms are compared. A gate brings its own confidence."""

    confidence: float
    seed: int
    counting: Counting
    independent: Unit
    gate: Gate | None
    across_policies: bool


def judged(
    comparison_id: str, baseline: ArmResults, current: ArmResults, pairs: Pairs, terms: Terms
) -> Comparison:
    """Compare two arms whose tasks are `pairs`. Raises `Conflict` where that would say nothing."""
    _check_comparable(baseline, current, pairs, terms)
    quality = _quality(pairs, terms)
    verdict, reason = _verdict(quality, terms.confidence)
    differ = differing(pairs)
    better = [pair for pair in differ if pair.difference > 0]
    worse = [pair for pair in differ if pair.difference < 0]
    return Comparison(
        comparison_id=comparison_id,
        verdict=verdict,
        reason=reason,
        confidence=terms.confidence,
        counting=terms.counting,
        independent=terms.independent,
        seed=terms.seed,
        resamples=statistics.RESAMPLES,
        baseline=_arm(baseline, pairs, [pair.baseline for pair in pairs], terms.confidence),
        current=_arm(current, pairs, [pair.current for pair in pairs], terms.confidence),
        quality=quality,
        roles=_roles(pairs, terms),
        measures=list(_measures(pairs, terms)),
        changes=[
            Change(what=what, baseline=old, current=new, changed=old != new)
            for what in FINGERPRINTS
            for old, new in [(baseline.fingerprint[what], current.fingerprint[what])]
        ],
        notes=list(_notes(baseline, current, pairs, quality, terms)),
        gate=_gate(terms.gate, verdict, quality),
        counts={
            "in": len(pairs) + len(pairs.only_baseline) + len(pairs.only_current),
            "paired": len(pairs),
            "only_baseline": len(pairs.only_baseline),
            "only_current": len(pairs.only_current),
        },
        better=[_listed(pair, terms.counting) for pair in better[:LISTED_MAX]],
        worse=[_listed(pair, terms.counting) for pair in worse[:LISTED_MAX]],
        only_baseline=list(pairs.only_baseline[:LISTED_MAX]),
        only_current=list(pairs.only_current[:LISTED_MAX]),
        listed_max=LISTED_MAX,
    )


def differing(pairs: Pairs) -> list[Pair]:
    """The tasks that the arms did differently: the largest differences first, whichever way; then by id."""
    found = [pair for pair in pairs if pair.difference]
    return sorted(found, key=lambda pair: (-abs(pair.difference), pair.task_id))


def _check_comparable(baseline: ArmResults, current: ArmResults, pairs: Pairs, terms: Terms) -> None:
    if not len(pairs):
        raise Conflict(
            f"replays {baseline.replay_id!r} and {current.replay_id!r} have no task in common;"
            " replay the same selection in both",
            code="nothing_to_compare",
        )
    if _policies_differ(baseline, current) and not terms.across_policies:
        raise Conflict(
            f"{baseline.replay_id!r} and {current.replay_id!r} were judged by different validator policies,"
            " so their pass rates cannot be compared; replay the baseline again under the policy in force, or"
            " ask for `across_policies` to see what the change of the policy does",
            code="policies_differ",
            param="across_policies",
        )


def _policies_differ(baseline: ArmResults, current: ArmResults) -> bool:
    return baseline.fingerprint["policy"] != current.fingerprint["policy"]


# --- quality ------------------------------------------------------------------------------------


def _quality(pairs: Pairs, terms: Terms) -> Quality:
    groups = pairs.groups()
    better = sum(pair.difference > 0 for pair in pairs)
    worse = sum(pair.difference < 0 for pair in pairs)
    return Quality(
        tasks=len(pairs),
        groups=len(groups.sizes),
        groups_discordant=groups.discordant,
        better=better,
        worse=worse,
        difference=groups.difference,
        interval=statistics.bootstrap(groups, terms.confidence, terms.seed),
        p=statistics.sign_flip(groups, terms.seed),
        mcnemar_p=mcnemar(better, worse) if pairs.mcnemar_holds else None,
        detectable=statistics.detectable(groups, terms.confidence),
    )


def _roles(pairs: Pairs, terms: Terms) -> list[RoleQuality]:
    """Each role by itself, those with the most tasks first; nothing where all tasks are of one."""
    parts = sorted(pairs.by_role().items(), key=lambda one: (-len(one[1]), one[0] or ""))
    if len(parts) < 2:
        return []
    shown = [(role, part, _quality(part, terms)) for role, part in parts[:ROLES_MAX]]
    corrected = holm([quality.p for _, _, quality in shown])
    return [
        RoleQuality(
            role=role,
            baseline=_rate(part, [pair.baseline for pair in part], terms.counting, terms.confidence),
            current=_rate(part, [pair.current for pair in part], terms.counting, terms.confidence),
            quality=quality,
            p_corrected=p,
        )
        for (role, part, quality), p in zip(shown, corrected, strict=True)
    ]


def _verdict(quality: Quality, confidence: float) -> tuple[ComparisonVerdict, str]:
    """Both the test and the interval must say so: either alone is fooled by data that the other is not."""
    least = statistics.groups_min(confidence)
    if quality.groups_discordant < least:
        return "no evidence", (
            f"{quality.groups_discordant} of {quality.groups} independent groups differ; at {confidence:.4g}"
            f" confidence no fewer than {least} could show a difference, even if all went one way"
        )
    low, high = quality.interval
    if quality.p > 1 - confidence:
        return "no evidence", f"a difference as large comes up by chance with p = {quality.p:.3g}"
    if low <= 0 <= high:
        return "no evidence", "the interval of the difference takes in zero: a few groups decide"
    way: ComparisonVerdict = "better" if low > 0 else "worse"
    return way, f"p = {quality.p:.3g}, and the interval of the difference leaves zero out"


def _gate(gate: Gate | None, verdict: ComparisonVerdict, quality: Quality) -> GateResult | None:
    if gate is None:
        return None
    passed, reason = gate.judge(verdict, quality)
    return GateResult(gate=gate.text, passed=passed, reason=reason)


def _arm(side: ArmResults, pairs: Pairs, results: Sequence[TaskResult], confidence: float) -> Arm:
    costs = [result.cost_usd for result in results]
    known = [cost for cost in costs if cost is not None]
    outcomes = Counter(outcome for result in results for outcome in result.outcomes)
    return Arm(
        replay_id=side.replay_id,
        name=side.name,
        tasks=len(side.results),
        own=_rate(pairs, results, "own", confidence),
        any=_rate(pairs, results, "any", confidence),
        outcomes=dict(sorted(outcomes.items())),
        repeats_max=max(len(result.outcomes) for result in results),
        cost_usd=math.fsum(known) if len(known) == len(costs) else None,
    )


def _rate(pairs: Pairs, results: Sequence[TaskResult], counting: Counting, confidence: float) -> Rate:
    passed = sum(result.share(counting) for result in results)
    rate = float(passed / len(results))
    effective = statistics.effective(pairs.rates(results, counting), pairs.sizes)
    return Rate(rate=rate, interval=wilson(rate, effective, confidence), tasks_effective=effective)


# --- beside quality -----------------------------------------------------------------------------


def _measures(pairs: Pairs, terms: Terms) -> Iterator[MedianDifference]:
    """Medians of what both arms tell of a task; nothing where they never do."""
    for measure in MEASURES:
        found = _median(pairs, measure, _READ[measure], terms)
        if found is not None:
            yield found


_READ: Final[dict[str, Callable[[TaskResult], float | None]]] = {
    "latency_ms": lambda result: result.latency_ms,
    "cost_usd": lambda result: result.cost_usd,
}


def _median(
    pairs: Pairs,
    measure: Literal["latency_ms", "cost_usd"],
    read: Callable[[TaskResult], float | None],
    terms: Terms,
) -> MedianDifference | None:
    known = [
        (before, after, pair.label)
        for pair in pairs
        if (before := read(pair.baseline)) is not None and (after := read(pair.current)) is not None
    ]
    if not known:
        return None
    old, new = (np.array(column, dtype=np.float64) for column in list(zip(*known, strict=True))[:2])
    names, labels = np.unique([label for _, _, label in known], return_inverse=True)
    enough = len(names) >= statistics.groups_min(terms.confidence)
    return MedianDifference(
        measure=measure,
        tasks=len(known),
        unknown=len(pairs) - len(known),
        baseline=float(np.median(old)),
        current=float(np.median(new)),
        difference=float(np.median(new - old)),
        interval=statistics.median_interval(new - old, labels, terms.confidence, terms.seed)
        if enough
        else None,
    )


def _notes(
    baseline: ArmResults, current: ArmResults, pairs: Pairs, quality: Quality, terms: Terms
) -> Iterator[str]:
    for side, alone in ((baseline, pairs.only_baseline), (current, pairs.only_current)):
        if alone:
            yield f"{len(alone)} tasks are in {side.replay_id!r} alone and count for neither arm."
        if side.left_out:
            reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(side.left_out.items()))
            yield f"{side.replay_id!r} has no result for some of its tasks: {reasons}."
    yield from _on_independence(pairs, quality, terms)
    if (count := len(pairs.by_role())) > ROLES_MAX:
        yield f"Of {count} job roles the {ROLES_MAX} with the most tasks are told apart."
    if _policies_differ(baseline, current):
        yield "The arms were judged by different validator policies: their difference is in the rates too."


def _on_independence(pairs: Pairs, quality: Quality, terms: Terms) -> Iterator[str]:
    if quality.groups < quality.tasks:
        yield (
            f"The {quality.tasks} tasks are {quality.groups} independent groups. Groups are tested and drawn"
            " as wholes, and McNemar's test does not apply."
        )
    elif not pairs.mcnemar_holds:
        yield "Tasks were repeated: repeats are averaged within a task, and McNemar's test does not apply."
    if terms.independent == "work":
        yield (
            "Near duplicates count one by one: the verdict is on work like this, and says little of work from"
            " other templates."
        )
    elif pairs.works > quality.groups:
        yield (
            f"By order, episode and prompt the tasks are {pairs.works} pieces of work; near duplicates of one"
            " another are one group. Where they come from a template, `independent` as `work` counts each."
        )


# --- what differs -------------------------------------------------------------------------------


def _listed(pair: Pair, counting: Counting) -> DiscordantTask:
    return DiscordantTask(
        evidence_id=pair.task_id,
        group=pair.current.group,
        kind=pair.current.kind,
        role=pair.current.role,
        baseline=float(pair.baseline.share(counting)),
        current=float(pair.current.share(counting)),
        baseline_codes=list(pair.baseline.codes),
        current_codes=list(pair.current.codes),
    )
