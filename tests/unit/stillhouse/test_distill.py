"""`stillhouse distill`: what is asked of the gateway, and what works on the data folder without one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from tests.unit.distill import vouched
from tests.unit.stillhouse.conftest import StubGateway

Run = Callable[..., Result]

COMMANDS = ("materialize", "score", "export", "audit", "keygen", "jobs")


def job(state: str = "done", **more: Any) -> dict[str, Any]:
    return {"job_id": "j1", "stage": "export", "state": state, "progress": 1.0, **more}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    vouched.build(tmp_path / "vouched")
    return tmp_path / "vouched"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_examples(run: Run, command: str) -> None:
    result = run("distill", command, "--help")
    assert result.exit_code == 0
    assert f"stillhouse distill {command}" in result.output


# --- through the gateway ----------------------------------------------------------------------


def test_only_what_was_asked_for_is_sent(run: Run, gateway: StubGateway) -> None:
    gateway.answers["POST /v1/distill/jobs"] = [(202, {"job_id": "j1"})]
    gateway.answers["GET /v1/distill/jobs/j1"] = [(200, job())]
    options = ("--shares", "0.7,0.2,0.1", "--pii", "phone=keep", "--pii", "ssn=quarantine", "--salt", "s")
    result = run("distill", "export", "--kind", "sft", "--include-partial", "--holdout-days", "7", *options)
    assert result.exit_code == 0, result.output
    assert gateway.requests[0][3] == {
        "stage": "export",
        "kind": "sft",
        "include_partial": True,
        "shares": {"train": 0.7, "validation": 0.2, "holdout": 0.1},
        "holdout_days": 7,
        "salt": "s",
        "pii": {"phone": "keep", "ssn": "quarantine"},
    }


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--shares", "a,b,c"], "--shares"),
        (["--shares", "1,0"], "--shares"),
        (["--shares", "0.5,0.1,0.1"], "--shares"),
        (["--pii", "phone"], "--pii"),
        (["--pii", "phone=burn"], "--pii"),
        (["--pii", "iris=mask"], "--pii"),
        (["--margin-min", "2"], "--margin-min"),
        (["--holdout-days", "0"], "--holdout-days"),
    ],
)
def test_options_that_make_no_sense_are_usage(run: Run, options: list[str], word: str) -> None:
    result = run("distill", "export", "--kind", "sft", *options)
    assert result.exit_code == 2
    assert word in result.stderr


def test_the_receipt_is_shown(run: Run, gateway: StubGateway) -> None:
    gateway.answers["POST /v1/distill/jobs"] = [(202, {"job_id": "j1"})]
    receipt = {"sequence": 2, "file": "000002-score.dsse.json", "sha256": "0" * 64}
    gateway.answers["GET /v1/distill/jobs/j1"] = [(200, job(stage="score", receipt=receipt))]
    assert f"receipt 000002-score.dsse.json {'0' * 64}" in run("distill", "score").stdout


def test_a_job_can_be_looked_at_without_waiting(run: Run, gateway: StubGateway) -> None:
    gateway.answers["GET /v1/distill/jobs/j1"] = [(200, job("running", progress=0.25)), (200, job("failed"))]
    result = run("distill", "jobs", "j1")
    assert (result.exit_code, len(gateway.requests)) == (0, 1)
    assert "progress 25%" in result.stdout
    assert run("distill", "jobs", "j1", "--wait").exit_code == 1


# --- on the folder itself ---------------------------------------------------------------------


def test_an_audit_needs_no_service_and_prints_what_to_keep(run: Run, data: Path) -> None:
    result = run("distill", "audit", "--data", str(data))
    assert result.exit_code == 0, result.output
    assert "vouched: everything" in result.stdout
    head = next(line for line in result.stdout.splitlines() if line.startswith("head 3:"))
    anchored = run("distill", "audit", "--data", str(data), "--anchor", head.removeprefix("head "), "--json")
    assert anchored.exit_code == 0
    assert json.loads(anchored.stdout)["outcome"] == "vouched"


def test_a_finding_names_file_and_place_and_exits_with_1(run: Run, data: Path) -> None:
    rows = data / vouched.DATASET / "train.jsonl"
    lines = rows.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"user", b"usor")
    rows.write_bytes(b"".join(lines))
    result = run("distill", "audit", "--data", str(data), "--seed", "1")
    assert result.exit_code == 1
    (row,) = [line for line in result.stdout.splitlines() if "row_differs" in line]
    assert "train.jsonl" in row
    assert "line 3" in row


def test_what_cannot_be_checked_has_a_status_of_its_own(run: Run, data: Path) -> None:
    with (data / "log" / "runs-000002.jsonl").open("ab") as segment:
        segment.write(b'{"half')
    result = run("distill", "audit", "--data", str(data), "--all")
    assert result.exit_code == 3
    assert "not checked: log/runs-000002.jsonl" in result.stdout


@pytest.mark.parametrize(
    "options", [["--anchor", "3"], ["--data", "/nonexistent"], ["--sample", "-1"], ["--seed", "x"]]
)
def test_an_audit_that_makes_no_sense_is_usage(run: Run, data: Path, options: list[str]) -> None:
    result = run("distill", "audit", "--data", str(data), *options)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_keygen_makes_one_key_and_never_another(run: Run, tmp_path: Path) -> None:
    first = run("distill", "keygen", "--data", str(tmp_path), "--json")
    assert first.exit_code == 0
    made = json.loads(first.stdout)
    assert Path(made["private_path"]).stat().st_mode & 0o777 == 0o600
    assert made["public_key"].startswith("-----BEGIN PUBLIC KEY-----")
    again = run("distill", "keygen", "--data", str(tmp_path))
    assert again.exit_code == 1
    assert "not overwritten" in again.stderr
