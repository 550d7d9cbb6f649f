"""`stillhouse replay`: what is asked of the gateway, in which order, and the exit status."""

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

from tests.unit.stillhouse.conftest import StubGateway

Run = Callable[..., Result]

SMALL = ("replay", "--model", "ollama/small")


def ended(stage: str, state: str = "done", **more: Any) -> tuple[int, dict[str, Any]]:
    return 200, {"job_id": stage, "stage": stage, "state": state, "progress": 1.0, **more}


@pytest.fixture
def three_jobs(gateway: StubGateway) -> StubGateway:
    """A replay, the recorded arm, and a comparison whose gate failed before there was one."""
    gateway.answers["POST /v1/distill/jobs"] = [
        (202, {"job_id": "replay"}),
        (202, {"job_id": "recorded"}),
        (202, {"job_id": "compare"}),
    ]
    gateway.answers["GET /v1/distill/jobs/replay"] = [ended("replay", replay_id="mine")]
    gateway.answers["GET /v1/distill/jobs/recorded"] = [ended("recorded", replay_id="mine.recorded")]
    error = {"message": "no tasks in common", "type": "conflict_error", "code": "nothing_to_compare"}
    gateway.answers["GET /v1/distill/jobs/compare"] = [ended("compare", "failed", error=error)]
    return gateway


def posted(gateway: StubGateway) -> list[Any]:
    return [body for method, _, _, body in gateway.requests if method == "POST"]


def test_help_has_examples(run: Run) -> None:
    result = run("replay", "--help")
    assert result.exit_code == 0
    assert "stillhouse replay --category accepted --limit 100" in result.output


def test_only_what_was_asked_for_is_sent(run: Run, gateway: StubGateway) -> None:
    gateway.answers["POST /v1/distill/jobs"] = [(202, {"job_id": "replay"})]
    counts = {"in": 3, "local_pass": 3}
    gateway.answers["GET /v1/distill/jobs/replay"] = [ended("replay", replay_id="mine", counts=counts)]
    options = ("--escalate", "openai/large", "--context", "3", "--since", "2026-11-02T06:00:00Z", "--fresh")
    result = run(*SMALL, *options, "--budget-usd", "0.5", "--evidence-id", "0" * 64, "--name", "mine")
    assert result.exit_code == 0, result.output
    assert posted(gateway) == [
        {
            "stage": "replay",
            "models": ["ollama/small", "openai/large"],
            "contexts": 3,
            "since": "2026-11-02T06:00:00Z",
            "evidence_ids": ["0" * 64],
            "budget_usd": 0.5,
            "name": "mine",
            "fresh": True,
        }
    ]
    assert "replay: done (in 3, local_pass 3)" in result.stdout
    assert "replay mine" in result.stdout


@pytest.mark.parametrize("json", [(), ("--json",)])
def test_a_gate_has_the_recorded_answers_judged_first(
    run: Run, three_jobs: StubGateway, json: tuple[str, ...]
) -> None:
    taped = ("--mode", "cassette", "--cassette", "ci")
    result = run(*SMALL, *taped, "--gate", "not worse at 95 %", "--pass", "any", *json)
    assert result.exit_code == 1
    replay, recorded, compare = posted(three_jobs)
    calls = {"mode": "cassette", "cassette": "ci"}
    assert replay == {"stage": "replay", "models": ["ollama/small"], **calls}
    assert recorded == {
        "stage": "replay",
        "recorded": True,
        "like": "mine",
        "name": "mine.recorded",
        **calls,
    }
    assert compare == {
        "stage": "compare",
        "baseline": "recorded",
        "current": "mine",
        "gate": "not worse at 95 %",
        "counting": "any",
        "independent": "group",
    }
    assert "nothing_to_compare" in result.stdout


def test_another_replay_is_compared_with_as_it_is(run: Run, three_jobs: StubGateway) -> None:
    three_jobs.answers["POST /v1/distill/jobs"].pop(1)
    assert run(*SMALL, "--against", "monday").exit_code == 1
    _, compare = posted(three_jobs)
    assert (compare["baseline"], compare["current"]) == ("monday", "mine")


def test_a_replay_that_failed_is_the_end(run: Run, gateway: StubGateway) -> None:
    gateway.answers["POST /v1/distill/jobs"] = [(202, {"job_id": "replay"})]
    error = {"message": "record it", "type": "conflict_error", "code": "recording_missing"}
    gateway.answers["GET /v1/distill/jobs/replay"] = [ended("replay", "failed", error=error)]
    result = run(*SMALL, "--against", "recorded")
    assert result.exit_code == 1
    assert "recording_missing: record it" in result.stdout
    assert len(posted(gateway)) == 1


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--escalate", "b"], "--escalate"),
        (["--model", "a", "--mode", "dry"], "--mode"),
        (["--model", "a", "--since", "yesterday"], "--since"),
        (["--model", "a", "--repeats", "0"], "--repeats"),
    ],
)
def test_options_that_make_no_sense_are_usage(run: Run, options: list[str], word: str) -> None:
    result = run("replay", *options)
    assert result.exit_code == 2
    assert word in result.stderr
