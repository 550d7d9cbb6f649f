"""`stillhouse distill compare`: what is asked, what is shown, and with which status it ends."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from distill.engine.compare.gate import Gate
from distill.engine.compare.pairing import paired
from distill.engine.compare.verdict import Terms, judged
from tests.unit.distill.compare.arms import FAILED, PASSED, TERMS, arm, arms_of_table, passing
from tests.unit.stillhouse.conftest import StubGateway

Run = Callable[..., Result]
FILES = "/v1/distill/comparisons/0123456789abcdef/files"


def of_two_roles() -> dict[str, Any]:
    """The welders got better, the others' work was done as well as before."""
    old, new = (
        arm(
            name,
            passing((30, PASSED), (20, welders)),
            role=lambda number: "welder\x1b[2J" if number >= 30 else None,
        )
        for name, welders in (("old", FAILED), ("new", PASSED))
    )
    return judged("0123456789abcdef", old, new, paired(old, new, "own", "group"), TERMS).model_dump(
        mode="json"
    )


def comparison(gate: str | None = None, *, worse: bool = False) -> dict[str, Any]:
    arms = arms_of_table(both=110, better=30, worse=12, neither=68)
    baseline, current = arms[::-1] if worse else arms
    terms = Terms(0.95, 0, "own", "group", Gate.parse(gate) if gate else None, across_policies=False)
    made = judged("0123456789abcdef", baseline, current, paired(baseline, current, "own", "group"), terms)
    return made.model_dump(mode="json")


def answer(gateway: StubGateway, made: dict[str, Any] | None, **more: Any) -> None:
    job = {"job_id": "j1", "stage": "compare", "state": "done", "progress": 1.0, "comparison": made, **more}
    gateway.answers["POST /v1/distill/jobs"] = [(202, {"job_id": "j1"})]
    gateway.answers["GET /v1/distill/jobs/j1"] = [(200, job)]


def test_help_has_examples_and_the_gates(run: Run) -> None:
    result = run("distill", "compare", "--help")
    assert result.exit_code == 0
    assert "stillhouse distill compare small" in result.output
    assert "not worse than 2 points at 95 %" in result.output


def test_it_asks_for_what_it_was_told(run: Run, gateway: StubGateway) -> None:
    answer(gateway, comparison())
    result = run("distill", "compare", "new", "--against", "old", "--pass", "any", "--seed", "3")
    assert result.exit_code == 0, result.output
    assert gateway.requests[0][3] == {
        "stage": "compare",
        "baseline": "old",
        "current": "new",
        "counting": "any",
        "independent": "group",
        "seed": 3,
        "across_policies": False,
    }


def test_it_tells_roles_apart_where_there_are_several(run: Run, gateway: StubGateway) -> None:
    answer(gateway, of_two_roles())
    output = run("distill", "compare", "new", "--against", "old").output
    assert "welder\u241b[2J" in output
    assert "\x1b[2J" not in output
    assert "(none)" in output
    assert "+100.0 (" in output
    answer(gateway, comparison())
    assert "p, corrected" not in run("distill", "compare", "new", "--against", "old").output


def test_it_shows_rates_difference_and_verdict(run: Run, gateway: StubGateway) -> None:
    answer(gateway, comparison())
    output = run("distill", "compare", "new", "--against", "old").output
    for part in ("+8.2 points", "63.6 %", "p = 0.00792", "30, 12 tasks", "better: p = 0.00792"):
        assert part in output


def test_json_is_the_comparison_itself(run: Run, gateway: StubGateway) -> None:
    made = comparison()
    answer(gateway, made)
    assert json.loads(run("distill", "compare", "new", "--json").stdout) == made


def test_a_gate_that_fails_ends_with_1_and_still_shows_why(run: Run, gateway: StubGateway) -> None:
    error = {"message": "the gate failed", "type": "conflict_error", "code": "gate_failed"}
    answer(gateway, comparison("not worse at 95 %", worse=True), state="failed", error=error)
    result = run("distill", "compare", "new", "--against", "old", "--gate", "not worse at 95 %")
    assert result.exit_code == 1
    assert "gate 'not worse at 95 %' failed: the verdict is 'worse'" in result.output


def test_a_gate_that_holds_ends_with_0(run: Run, gateway: StubGateway) -> None:
    answer(gateway, comparison("better at 95 %"))
    result = run("distill", "compare", "new", "--against", "old", "--gate", "better at 95 %")
    assert result.exit_code == 0
    assert "passed" in result.output


def test_the_report_is_fetched(run: Run, gateway: StubGateway, tmp_path: Path) -> None:
    answer(gateway, comparison())
    gateway.answers[f"GET {FILES}/report.html"] = [(200, b"<!doctype html>")]
    result = run("distill", "compare", "new", "--html", str(tmp_path / "report.html"))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "report.html").read_text() == "<!doctype html>"


def test_nothing_to_compare_ends_with_1(run: Run, gateway: StubGateway) -> None:
    error = {"message": "there is no replay 'old'", "type": "not_found_error", "code": "replay_not_found"}
    answer(gateway, None, state="failed", error=error)
    result = run("distill", "compare", "new", "--against", "old")
    assert result.exit_code == 1
    assert "there is no replay 'old'" in result.output


@pytest.mark.parametrize("options", [["--pass", "some"], ["--confidence", "2"], ["--against", "no/such"]])
def test_options_that_make_no_sense_are_usage(run: Run, options: list[str]) -> None:
    assert run("distill", "compare", "new", *options).exit_code == 2
