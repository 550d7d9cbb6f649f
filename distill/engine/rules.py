"""The policy: which category a piece of evidence has, and for which reasons. A pure function.

From the top, the first that holds:

| seen | category | reasons |
|---|---|---|
| nothing came back from the model | rejected | `output.none` |
| rejected by verdict, called good by a person | needs_human_review | `feedback.contradicts_verdict` |
| rejected by verdict | rejected | the codes found |
| people disagree | needs_human_review | `feedback.mixed` |
| a person calls it bad | rejected | `feedback.negative` |
| a person sent a corrected output | rejected | `feedback.corrected` |
| no verdict | needs_human_review | `verdict.none` |
| any other verdict | as the verdict | the codes of errors and reviews |

`verdict.<name>` is always among the reasons, and `feedback.positive` where a person calls it good.
A person's word is a `boolean` feedback (the latest one of each person and name) or a `demonstration`. It
outranks the validators towards rejection only: what they reject never becomes training data unseen.
Bump `POLICY_VERSION` with every change of this table.
"""

from collections.abc import Iterable
from typing import Final

from schemas.evidence import Category, Evidence, EvidenceFeedback

SCORER_VERSION: Final = "1.0.0"
POLICY_VERSION: Final = "1"

Scoring = tuple[Category, list[str]]


def score(evidence: Evidence) -> Scoring:
    """The category, and the codes of the reasons, each once."""
    category, reasons = _judge(evidence)
    return category, list(dict.fromkeys(reasons))


def _judge(evidence: Evidence) -> Scoring:
    if evidence.output is None:
        return "rejected", ["output.none"]
    codes = _verdict_codes(evidence)
    votes = _votes(evidence.feedback)
    if evidence.verdict is not None and evidence.verdict.verdict == "rejected":
        if True in _votes(one for one in evidence.feedback if one.scope == "run"):
            return "needs_human_review", [*codes, "feedback.contradicts_verdict"]
        return "rejected", codes
    if votes == {True, False}:
        return "needs_human_review", [*codes, "feedback.mixed"]
    if against := _against(evidence, votes):
        return "rejected", [*codes, *against]
    category: Category = evidence.verdict.verdict if evidence.verdict else "needs_human_review"
    return category, [*codes, *(["feedback.positive"] if votes else [])]


def _verdict_codes(evidence: Evidence) -> list[str]:
    if evidence.verdict is None:
        return ["verdict.none"]
    serious = [one.code for one in evidence.verdict.findings if one.severity in ("error", "review")]
    return [f"verdict.{evidence.verdict.verdict}", *serious]


def _votes(feedback: Iterable[EvidenceFeedback]) -> set[bool]:
    latest = {
        (one.by, one.name, one.scope): one.value
        for one in sorted(feedback, key=lambda one: (one.ts, one.feedback_id))
        if one.kind == "boolean"
    }
    return {value for value in latest.values() if isinstance(value, bool)}


def _against(evidence: Evidence, votes: set[bool]) -> list[str]:
    corrected = any(one.kind == "demonstration" for one in evidence.feedback)
    return ["feedback.negative"] * (False in votes) + ["feedback.corrected"] * corrected
