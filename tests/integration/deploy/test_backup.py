"""The backup of docs/operations.md: volumes copied while daemons are stopped, then restored elsewhere."""

import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import pytest
from typer.testing import CliRunner

from services.keys import KeyGrant, KeyStore
from stillhouse.cli import app
from stillhouse.supervisor import running
from tests.generate import DAEMONS
from tests.processes import ROOT, free_ports

pytestmark = [pytest.mark.enable_socket, pytest.mark.timeout(180)]

VOLUMES: Final = ("gateway", "vectord", "distill")
ARGUMENTS: Final = (*VOLUMES, "--compose", str(ROOT / "deploy" / "compose.yaml"))
PATIENCE_S: Final = 60.0
RUN: Final = {
    "schema": "stillhouse.run",
    "schema_version": "1.0",
    "run_id": "run-1",
    "ts": "2026-11-02T10:00:00Z",
    "request": {"messages": [{"role": "user", "content": "Who may drive the truck?"}]},
    "model": {"provider": "ollama", "name": "tiny"},
    "output": {"content": "Ann", "finish_reason": "stop"},
}
COLLECTION: Final = "/v1/collections/notes"
NEAREST: Final = {"vector": [0.9, 0.1], "k": 1, "with": ["payload"]}


@contextmanager
def platform(folder: Path, key: str) -> Iterator[httpx.Client]:
    """The Compose file's gateway, vectord and distill, on the volumes below a folder."""
    (folder / "internal_token").write_text("0123456789abcdef-token\n")
    variables = {**free_ports(DAEMONS), "STILLHOUSE_SECRETS": str(folder)}
    headers = {"authorization": f"Bearer {key}"}
    with running(folder, *ARGUMENTS, log=folder / "up.log", environment=variables) as run:
        (url,) = [process.url for process in run.processes if process.name == "gateway"]
        with httpx.Client(base_url=url, headers=headers, timeout=PATIENCE_S, trust_env=False) as client:
            yield client


def fill(client: httpx.Client) -> None:
    """A run in the log and in the evidence, and a point in a collection."""
    assert client.post("/v1/runs", json=RUN).raise_for_status().json()["accepted"] == 1
    job = client.post("/v1/distill/jobs", json={"stage": "materialize"}).raise_for_status().json()["job_id"]
    deadline = time.monotonic() + PATIENCE_S
    while (state := client.get(f"/v1/distill/jobs/{job}").json()["state"]) != "done":
        assert time.monotonic() < deadline, state
        assert state in ("queued", "running"), state
        time.sleep(0.1)
    client.put(COLLECTION, json={"dimension": 2}).raise_for_status()
    points = [{"id": "1", "vector": [1.0, 0.0], "payload": {"name": "Ann"}}]
    client.put(f"{COLLECTION}/points", json={"points": points}).raise_for_status()


def test_what_was_copied_is_all_there_elsewhere(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    key, _ = KeyStore(before / "volumes" / "gateway").create(KeyGrant(name="ops", scopes=("admin",)))
    with platform(before, key) as client:
        fill(client)
        told = client.get("/v1/runs/run-1").raise_for_status().json()
    for volume in VOLUMES:
        with tarfile.open(tmp_path / f"{volume}.tar", "w") as archive:
            archive.add(before / "volumes" / volume, ".")
        with tarfile.open(tmp_path / f"{volume}.tar") as archive:
            archive.extractall(after / "volumes" / volume, filter="data")

    audit = ["distill", "audit", "--all", "--data", str(after / "volumes" / "distill")]
    result = CliRunner().invoke(app, audit)
    assert result.exit_code == 0, result.output
    with platform(after, key) as client:
        assert client.get("/v1/runs/run-1").raise_for_status().json() == told
        hits = client.post(f"{COLLECTION}/search", json=NEAREST).raise_for_status().json()["hits"]
        assert [hit["payload"] for hit in hits] == [{"name": "Ann"}]
        assert client.get(COLLECTION, headers={"authorization": "Bearer sh-unknown"}).status_code == 401
