from typing import Any

import pytest

from distill.engine import rules
from schemas.evidence import Category, Evidence
from tests.unit.distill.builders import verdict

GOOD = {"kind": "boolean", "value": True}
BAD = {"kind": "boolean", "value": False}
CORRECTED = {"kind": "demonstration", "value": "better"}


def evidence(name: str | None, *feedback: dict[str, Any], output: Any = None) -> Evidence:
    said = [
        {"feedback_id": str(number), "ts": f"2026-11-02T10:00:0{number}Z", "scope": "run", "by": "ann", **one}
        for number, one in enumerate(feedback)
    ]
    return Evidence.model_validate(
        {
            "evidence_id": "0" * 64,
            "source": {
                "kind": "stillhouse",
                "key": "r1",
                "segment": "runs-000001.jsonl",
                "offset": 0,
                "length": 1,
                "line_sha256": "0" * 64,
            },
            "input": {"messages": []},
            "output": output or {"content": "x"},
            "model": {"provider": "p", "name": "m"},
            "verdict": verdict(name, *(["c.d"] if name == "rejected" else [])) if name else None,
            "feedback": said,
        }
    )


RULES = rules.Rules(rules.read(rules.SHIPPED))


def scored(seen: Evidence) -> tuple[Category, list[str]]:
    return RULES.score(seen.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("seen", "category", "reasons"),
    [
        (evidence(None), "needs_human_review", ["verdict.none"]),
        (evidence(None, GOOD), "needs_human_review", ["verdict.none", "feedback.positive"]),
        (evidence(None, BAD), "rejected", ["verdict.none", "feedback.negative"]),
        (evidence("accepted"), "accepted", ["verdict.accepted"]),
        (evidence("accepted", GOOD), "accepted", ["verdict.accepted", "feedback.positive"]),
        (evidence("accepted", BAD), "rejected", ["verdict.accepted", "feedback.negative"]),
        (evidence("accepted", BAD, GOOD), "accepted", ["verdict.accepted", "feedback.positive"]),
        (
            evidence("accepted", BAD, {**GOOD, "by": "bob"}),
            "needs_human_review",
            ["verdict.accepted", "feedback.mixed"],
        ),
        (evidence("accepted", CORRECTED), "rejected", ["verdict.accepted", "feedback.corrected"]),
        (evidence("partially_accepted"), "partially_accepted", ["verdict.partially_accepted"]),
        (evidence("needs_human_review"), "needs_human_review", ["verdict.needs_human_review"]),
        (evidence("rejected"), "rejected", ["verdict.rejected", "c.d"]),
        (
            evidence("rejected", GOOD),
            "needs_human_review",
            ["verdict.rejected", "c.d", "feedback.contradicts_verdict"],
        ),
        (evidence("rejected", {**GOOD, "scope": "episode"}), "rejected", ["verdict.rejected", "c.d"]),
    ],
)
def test_the_policy(seen: Evidence, category: Category, reasons: list[str]) -> None:
    assert scored(seen) == (category, reasons)


def test_no_answer_is_rejected_whatever_was_said() -> None:
    silent = evidence("accepted").model_copy(update={"output": None})
    assert scored(silent) == ("rejected", ["output.none"])
