"""`stillhouse runs show`: a run's life on one page, whatever its texts hold."""

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

from tests.unit.stillhouse.conftest import StubGateway

Run = Callable[..., Result]

ID = "e" * 64
DRAFT = "d" * 64
VERDICT = {
    "ok": False,
    "verdict": "rejected",
    "findings": [{"code": "fill.underage", "severity": "error", "path": "/fills/0", "message": "W1 is 17"}],
    "kind": "fill",
    "validator": {"name": "fill", "version": "1.0", "policy_version": "7"},
    "elapsed_ms": 1.0,
}


def view(**fields: Any) -> dict[str, Any]:
    return {
        "run": {
            "run_id": "r-1",
            "episode_id": "ep-1",
            "ts": "2026-11-02T10:00:00Z",
            "task": {"kind": "fill", "key": "JO-1"},
            "request": {
                "messages": [
                    {"role": "system", "content": "Be\x1b[2J brief."},
                    {"role": "user", "content": [{"type": "text", "text": "Two welders [bold]now[/bold]"}]},
                ]
            },
            "retrieved_context": [
                {
                    "collection": "notes",
                    "id": 7,
                    "role": "welder",
                    "score": 0.5,
                    "text": "T" * 900,
                    "text_sha256": "0" * 64,
                }
            ],
            "model": {"provider": "ollama", "name": "tiny"},
            "attempts": [
                {
                    "provider": "ollama",
                    "model": "tiny",
                    "status": "failed",
                    "code": "upstream_timeout",
                    "latency_ms": 900,
                }
            ],
            "output": {"content": None, "tool_calls": [{"id": "c1"}], "finish_reason": "tool_calls"},
            "usage": {"prompt_tokens": 12, "completion_tokens": None, "cost_usd": 0.25},
        },
        "verdicts": [{"run_id": "r-1", "ts": "2026-11-02T10:00:01Z", "verdict": VERDICT}],
        "feedback": [
            {
                "feedback_id": "f",
                "ts": "2026-11-02T11:00:00Z",
                "run_id": "r-1",
                "kind": "comment",
                "value": "no welder",
                "by": "planner",
            }
        ],
        "evidence_id": ID,
        **fields,
    }


LIFE = {
    "evidence": None,
    "scored": {
        "evidence_id": ID,
        "category": "rejected",
        "reasons": ["verdict.rejected"],
        "scorer_version": "2",
        "policy_version": "3",
    },
    "episode": [
        {
            "run_id": "r-0",
            "evidence_id": DRAFT,
            "ts": None,
            "model": {"provider": "ollama", "name": "tiny"},
            "verdict": "rejected",
            "category": "rejected",
            "repair_of": None,
        },
        {
            "run_id": "r-1",
            "evidence_id": ID,
            "ts": None,
            "model": {"provider": "ollama", "name": "tiny"},
            "verdict": "rejected",
            "category": "rejected",
            "repair_of": DRAFT,
        },
    ],
    "rows": [
        {
            "dataset_id": "preference-openai-0",
            "file": "train.jsonl",
            "line": 3,
            "split": "train",
            "part": "rejected",
        }
    ],
    "replays": [
        {
            "replay_id": "cheap",
            "arm": "tiny",
            "repeat": 0,
            "mode": "live",
            "outcome": "failed",
            "run_ids": ["again-1", "again-2"],
        }
    ],
    "complete": False,
}


@pytest.fixture
def told(gateway: StubGateway) -> StubGateway:
    gateway.answers["GET /v1/runs/r-1?life=true"] = [(200, view(category="rejected", life=LIFE))]
    return gateway


@pytest.mark.usefixtures("told")
def test_the_whole_life_is_on_one_page(run: Run) -> None:
    page = run("runs", "show", "r-1").stdout
    for line in (
        "2026-11-02T10:00:00+00:00 · ollama/tiny · task fill JO-1 · episode ep-1",
        "user: Two welders [bold]now[/bold]",
        "notes/7 · welder · score 0.5",
        "failed (upstream_timeout) · ollama/tiny · 900 ms",
        "finished by tool_calls · 12 + ? tokens · 0.250000 US dollars",
        "rejected · fill 1.0, policy 7",
        "error fill.underage at /fills/0: W1 is 17",
        "comment by planner: no welder",
        "rejected (verdict.rejected)",
        "r-1 · ollama/tiny · verdict rejected · rejected · repairs r-0",
        "datasets/preference-openai-0/train.jsonl, line 3, as the rejected side",
        "cheap · tiny (live, repeat 0): failed · runs again-1, again-2",
        "There are more datasets and replays than were searched",
    ):
        assert line in page
    titles = [line for line in page.splitlines() if line and not line.startswith(" ")]
    assert titles[:-1] == [
        "run r-1", "request", "context", "attempts", "answer", "verdict", "feedback", "evidence", "category",
        "episode", "exported rows", "replays",
    ]  # fmt: skip


@pytest.mark.usefixtures("told")
def test_texts_move_no_cursor_and_are_shortened(run: Run) -> None:
    page = run("runs", "show", "r-1").stdout
    assert "\x1b" not in page
    assert "Be\N{REPLACEMENT CHARACTER}[2J brief." in page
    assert "(900 characters; --full shows all)" in page
    assert "T" * 900 in run("runs", "show", "r-1", "--full").stdout.replace("\n", "").replace(" ", "")


def test_what_did_not_happen_yet_is_said(run: Run, gateway: StubGateway) -> None:
    life: dict[str, Any] = {
        "evidence": None,
        "scored": None,
        "episode": [],
        "rows": [],
        "replays": [],
        "complete": True,
    }
    gateway.answers["GET /v1/runs/r-1?life=true"] = [(200, view(life=life, feedback=[]))]
    page = run("runs", "show", "r-1").stdout
    assert "not materialized yet" in page
    assert "not scored yet" in page
    assert page.count("none") == 3  # feedback, rows, replays


@pytest.mark.usefixtures("told")
def test_programs_get_all_of_it(run: Run) -> None:
    assert '"repair_of"' in run("runs", "show", "r-1", "--json").stdout


def test_a_run_that_is_not_there(run: Run, gateway: StubGateway) -> None:
    message = "there is no run 'x/y'"
    error = {"message": message, "type": "not_found_error", "code": "run_not_found"}
    gateway.answers["GET /v1/runs/x%2Fy?life=true"] = [(404, {"error": error})]
    result = run("runs", "show", "x/y")
    assert (result.exit_code, result.stderr) == (1, f"stillhouse: {message}\n")
