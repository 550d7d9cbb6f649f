import pytest

from distill.engine.compare.gate import FORMS, Gate
from schemas.comparison import ComparisonVerdict, Quality
from services.errors import InvalidRequest


def quality(low: float, high: float, *, detectable: float | None = 0.05) -> Quality:
    return Quality(
        tasks=100,
        groups=100,
        groups_discordant=20,
        better=10,
        worse=10,
        difference=(low + high) / 2,
        interval=(low, high),
        p=1,
        mcnemar_p=1,
        detectable=detectable,
    )


@pytest.mark.parametrize("text", FORMS)
def test_the_forms_that_errors_name_are_gates(text: str) -> None:
    assert Gate.parse(text).text == text


@pytest.mark.parametrize(
    ("text", "confidence", "margin"),
    [
        ("not worse at 95%", 0.95, None),
        (" not worse at 90 % ", 0.9, None),
        ("not worse than 1 point at 99.9 %", 0.999, 0.01),
        ("not worse than 2.5 points at 80 %", 0.8, 0.025),
    ],
)
def test_other_numbers_are_understood(text: str, confidence: float, margin: float | None) -> None:
    gate = Gate.parse(text)
    assert gate.confidence == pytest.approx(confidence)
    assert gate.margin == (pytest.approx(margin) if margin is not None else None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not worse",
        "no worse at 95 %",
        "not worse at 95",
        "not worse at ninety %",
        "not worse than 2 at 95 %",
        "not worse than -2 points at 95 %",
        "better than 2 points at 95 %",
        "not worse at 95 % or so",
        "NOT WORSE AT 95 %",
        "not worse at 100 %",
        "not worse at 95 %\nbetter at 95 %",
    ],
)
def test_anything_else_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Gate.parse(text)
    assert refused.value.param == "gate"
    assert all(form in refused.value.message for form in FORMS)


@pytest.mark.parametrize("text", ["not worse at 49 %", "better at 0 %"])
def test_a_confidence_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="50 %"):
        Gate.parse(text)


@pytest.mark.parametrize(
    ("text", "verdict", "passes"),
    [
        ("not worse at 95 %", "better", True),
        ("not worse at 95 %", "no evidence", True),
        ("not worse at 95 %", "worse", False),
        ("better at 95 %", "better", True),
        ("better at 95 %", "no evidence", False),
        ("better at 95 %", "worse", False),
    ],
)
def test_gates_go_by_the_verdict(text: str, verdict: ComparisonVerdict, *, passes: bool) -> None:
    assert Gate.parse(text).judge(verdict, quality(-0.01, 0.01))[0] is passes


@pytest.mark.parametrize(
    ("low", "high", "passes"),
    [(-0.019, 0.1, True), (-0.02, 0.1, False), (-0.3, -0.2, False), (0.1, 0.2, True)],
)
def test_a_margin_goes_by_the_interval(low: float, high: float, *, passes: bool) -> None:
    gate = Gate.parse("not worse than 2 points at 95 %")
    assert gate.judge("no evidence", quality(low, high))[0] is passes


def test_a_gate_that_passes_says_what_it_may_have_missed() -> None:
    gate = Gate.parse("not worse at 95 %")
    assert "12.0 points" in gate.judge("no evidence", quality(-0.1, 0.1, detectable=0.12))[1]
    assert "no loss could" in gate.judge("no evidence", quality(-1, 1, detectable=None))[1]
