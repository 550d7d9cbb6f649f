"""`stillhouse distill drift`: what is asked for, what is shown, what is kept, and how it exits."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from tests.unit.stillhouse.conftest import StubGateway

Run = Callable[..., Result]

PROFILE: dict[str, Any] = {
    "kind": "stillhouse.drift_profile",
    "version": 1,
    "window": {"name": "current", "count": 2},
    "latest": None,
    "tasks": 2,
    "judged": 2,
    "inputs": {"model": {"ollama/tiny": 2}},
    "categories": {"accepted": [[1.0, 2]]},
    "findings": {},
    "numbers": {},
    "verdicts": {},
}
NAME = "0123456789abcdef"


def drift(**fields: Any) -> dict[str, Any]:
    return {
        "ts": "2026-11-10T00:00:00Z",
        "baseline": {"name": "baseline", "until": "2026-11-09T00:00:00Z", "count": 40},
        "current": {"name": "current", "since": "2026-11-09T00:00:00Z", "count": 41},
        "inputs": [
            {
                "property": "model",
                "baseline": {"a": 0.5, "b": 0.3, "c": 0.1, "d": 0.1},
                "current": {"e": 1},
                "distance": 1,
                "p": 0.00004,
                "drifted": True,
            }
        ],
        "outputs": [
            {
                "metric": "finding",
                "key": "fill.underage",
                "baseline": 0.1,
                "current": 0.5,
                "difference": 0.4,
                "interval": [0.2, 0.6],
                "p": 0.01,
                "drifted": True,
                "baseline_tasks": 40,
                "current_tasks": 41,
            },
            {"metric": "cost", "baseline": None, "current": None, "difference": None, "drifted": False},
        ],
        "flips": [{"baseline_evidence_id": "a" * 64, "current_evidence_id": "b" * 64, "accepted": False}],
        "alpha": 0.05,
        **fields,
    }


@pytest.fixture
def asked(gateway: StubGateway) -> Callable[..., None]:
    """Let the next job end with this drift, or as it says."""

    def prepare(found: dict[str, Any] | None, **job: Any) -> None:
        gateway.answers["POST /v1/distill/jobs"] = [(202, {"job_id": "j1"})]
        product = {"name": f"drift/{NAME}.profile.json", "sha256": "0" * 64, "lines": 1, "bytes": 9}
        ended = {"job_id": "j1", "stage": "drift", "state": "done", "progress": 1.0, "products": [product]}
        gateway.answers["GET /v1/distill/jobs/j1"] = [(200, {**ended, "drift": found, **job})]
        gateway.answers[f"GET /v1/distill/drifts/{NAME}.profile.json"] = [(200, PROFILE)]

    return prepare


def test_inputs_are_told_apart_from_outputs(run: Run, asked: Callable[..., None]) -> None:
    asked(drift())
    page = run("distill", "drift").stdout
    assert "baseline: 40 pieces of evidence, from the beginning to 2026-11-09T00:00:00+00:00" in page
    assert "… 1 more" in page
    assert "<0.0001" in page
    for word in ("finding fill.underage", "40 / 41", "10.0%", "+40.0%", "+20.0% … +60.0%", "0.0100"):
        assert word in page
    assert f"no longer accepted: {'b' * 64} (was {'a' * 64})" in page
    assert "what came out has drifted: finding fill.underage" in page


@pytest.mark.parametrize(
    ("found", "options", "status"),
    [
        (drift(), (), 0),
        (drift(), ("--fail-on-drift",), 1),
        (drift(outputs=[]), ("--fail-on-drift",), 0),  # other inputs alone are no failure
        (drift(), ("--fail-on-drift", "--json"), 1),
    ],
)
def test_how_it_exits(
    run: Run, asked: Callable[..., None], found: dict[str, Any], options: tuple[str, ...], status: int
) -> None:
    asked(found)
    assert run("distill", "drift", *options).exit_code == status


def test_days_are_moments(run: Run, gateway: StubGateway, asked: Callable[..., None]) -> None:
    asked(drift())
    result = run("distill", "drift", "--since", "2026-11-09", "--until", "2026-11-10T06:00:00+01:00")
    assert result.exit_code == 0, result.output
    sent = gateway.requests[0][3]
    assert sent["since"] == "2026-11-09T00:00:00Z"
    assert sent["until"].startswith("2026-11-10T06:00:00")


def test_a_baseline_is_saved_and_used(
    run: Run, gateway: StubGateway, asked: Callable[..., None], tmp_path: Path
) -> None:
    kept = tmp_path / "november.json"
    asked(None)
    assert run("distill", "drift", "--save-baseline", str(kept)).exit_code == 0
    assert gateway.requests[0][3] == {"stage": "drift", "measure_only": True}
    assert json.loads(kept.read_text()) == PROFILE
    gateway.requests.clear()
    asked(drift())
    newer = tmp_path / "december.json"
    result = run("distill", "drift", "--baseline", str(kept), "--save-baseline", str(newer), "--json")
    assert json.loads(result.stdout)["alpha"] == 0.05
    assert gateway.requests[0][3]["profile"]["inputs"] == PROFILE["inputs"]
    assert newer.read_bytes() == kept.read_bytes()


def test_a_file_that_is_no_baseline_is_usage(run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"kind":"something"}')
    result = run("distill", "drift", "--baseline", str(other))
    assert result.exit_code == 2
    assert "is no saved baseline" in result.stderr


def test_a_job_that_failed_is_told(run: Run, asked: Callable[..., None]) -> None:
    error = {
        "message": "there is no evidence in the current window",
        "type": "conflict_error",
        "code": "window_empty",
    }
    asked(None, state="failed", error=error)
    result = run("distill", "drift")
    assert (result.exit_code, "window_empty" in result.stdout) == (1, True)
