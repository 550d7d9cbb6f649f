"""A real process, looked at from the command line: drift against a saved baseline, and a run's whole life."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from stillhouse.cli import app
from tests.processes import Running, running
from tests.unit.distill.builders import Json, episode, ndjson
from tests.unit.distill.drift.windows_of_work import FIRST_WEEK, SECOND_WEEK, week

pytestmark = pytest.mark.enable_socket


@pytest.fixture
def distill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Commands talk to it as if it were the gateway, which passes on what they ask."""
    with running("distill", tmp_path, env={"DISTILL_DISK_FREE_BYTES_MIN": "0"}) as started:
        monkeypatch.setenv("STILLHOUSE_GATEWAY_URL", started.url)
        monkeypatch.setenv("NO_COLOR", "1")
        yield started


def finished(client: httpx.Client, request: Json) -> Json:
    job_id = client.post("/v1/distill/jobs", json=request).raise_for_status().json()["job_id"]
    while True:
        job: Json = client.get(f"/v1/distill/jobs/{job_id}").raise_for_status().json()
        if job["state"] in ("done", "failed"):
            assert job["state"] == "done", job["error"]
            return job
        time.sleep(0.01)


def command(*words: str) -> Result:
    return CliRunner().invoke(app, words, prog_name="stillhouse")


def test_drift_since_a_saved_baseline(distill: Running, tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.json"
    with httpx.Client(base_url=distill.url, trust_env=False, timeout=30) as client:
        client.post("/v1/runs", content=ndjson(week(FIRST_WEEK, tasks=True))).raise_for_status()
        for stage in ("materialize", "score"):
            finished(client, {"stage": stage})
        assert command("distill", "drift", "--save-baseline", str(baseline)).exit_code == 0
        later = week(SECOND_WEEK, rejected=14, tasks=True)
        client.post("/v1/runs", content=ndjson(later)).raise_for_status()
        for stage in ("materialize", "score"):
            finished(client, {"stage": stage})
    asked = ("distill", "drift", "--baseline", str(baseline), "--since", f"{SECOND_WEEK:%Y-%m-%d}")
    told = command(*asked, "--fail-on-drift")
    assert told.exit_code == 1, told.output
    assert "what came out has drifted: verdict_flip" in told.stdout
    drift = json.loads(command(*asked, "--json").stdout)
    assert [one["metric"] for one in drift["outputs"] if one["drifted"]] == ["verdict_flip"]
    assert len(drift["flips"]) == 10
    assert command("distill", "drift", "--until", "2026-11-02").exit_code == 1  # there is nothing so early


def test_a_run_from_its_request_to_its_rows(distill: Running) -> None:
    with httpx.Client(base_url=distill.url, trust_env=False, timeout=30) as client:
        client.post("/v1/runs", content=ndjson(episode("JO-1"))).raise_for_status()
        said = {"run_id": "JO-1-2", "kind": "comment", "value": "thank you", "by": "planner"}
        client.post("/v1/feedback", json=said).raise_for_status()
        for stage in ("materialize", "score"):
            finished(client, {"stage": stage})
        job = finished(client, {"stage": "export", "kind": "preference", "target": "openai"})
    page = command("runs", "show", "JO-1-2").stdout
    for line in (
        "user: fill JO-1",
        "comment by planner: thank you",
        "JO-1-2 · ollama/tiny · verdict accepted · accepted · repairs JO-1-1",
        f"datasets/{job['dataset_id']}/train.jsonl, line 1",
    ):
        assert line in page
    assert json.loads(command("runs", "show", "JO-1-1", "--json").stdout)["life"]["rows"][0]["part"] == (
        "rejected"
    )
    assert command("runs", "show", "nobody").exit_code == 1
