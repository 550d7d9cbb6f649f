"""distill killed with SIGKILL during replays: the next run ends with the very bytes of an undisturbed one.

`REPLAY_KILLS` says how often `make chaos` kills (20), `CHAOS_SEED` when.
"""

import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.processes import Running, running
from tests.unit.distill.builders import ndjson
from tests.unit.distill.replay.arms import folder as files_of
from tests.unit.distill.replay.arms import orders

pytestmark = [pytest.mark.enable_socket]

KILLS: Final = int(os.environ.get("REPLAY_KILLS", "20"))
KILLS_IN_CI: Final = 3
SEED: Final = int(os.environ.get("CHAOS_SEED", "5"))
TASKS: Final = 250
TAPED: Final[dict[str, Any]] = {
    "stage": "replay",
    "models": ["stub"],
    "attempts_max": 2,
    "repeats": 2,
    "cassette": "kept",
    "name": "mine",
    "mode": "cassette",
}
PATIENCE_S: Final = 60.0
CALM: Final = {"DISTILL_DISK_FREE_BYTES_MIN": "0", "DISTILL_LOG_LEVEL": "warning"}


@pytest.fixture(scope="module")
def stub_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running("tests.stubs.iterate", tmp_path_factory.mktemp("stub")) as stub:
        yield stub.url


def start(distill: Running, **request: Any) -> str:
    answer = httpx.post(f"{distill.url}/v1/distill/jobs", json=request, trust_env=False)
    assert answer.status_code == 202, answer.text
    return f"{distill.url}/v1/distill/jobs/{answer.json()['job_id']}"


def finish(distill: Running, **request: Any) -> float:
    """Run a job to its end; the seconds it took."""
    path, began = start(distill, **request), time.monotonic()
    while (job := httpx.get(path, trust_env=False).json())["state"] not in ("done", "failed"):
        assert time.monotonic() - began < PATIENCE_S
        time.sleep(0.02)
    assert job["state"] == "done", job
    return time.monotonic() - began


def kill_and_resume(folder: Path, stub_url: str, kills: int) -> None:
    chance = random.Random(SEED)
    env = {**CALM, "DISTILL_CHATD_URL": stub_url, "DISTILL_VALIDATORS_URL": stub_url}
    data = folder / "data"
    with running("distill", folder, env=env) as distill:
        headers = {"content-type": "application/x-ndjson"}
        httpx.post(f"{distill.url}/v1/runs", content=ndjson(orders(TASKS)), headers=headers, trust_env=False)
        finish(distill, stage="materialize")
        finish(distill, stage="score")
    with running("distill", folder, env=env) as distill:
        start(distill, **{**TAPED, "mode": "refresh"})
        time.sleep(chance.uniform(0.0, 0.5))  # the cassette may be torn then
        distill.kill()
    with running("distill", folder, env=env) as distill:
        finish(distill, **{**TAPED, "mode": "refresh", "fresh": True})
        took = finish(distill, **TAPED)
        expected = files_of(data, "mine")
    half_done = 0
    for _ in range(kills):
        shutil.rmtree(data / "replays")
        with running("distill", folder, env=env) as distill:
            start(distill, **TAPED)
            time.sleep(chance.uniform(0.0, took))
            distill.kill()
        half_done += (data / "replays" / "mine" / "journal" / "done.jsonl").exists()
        with running("distill", folder, env=env) as distill:
            finish(distill, **TAPED)
            made = files_of(data, "mine")
        assert made.keys() == expected.keys()
        assert [name for name in made if made[name] != expected[name]] == []
    print(f"{kills} kills, {half_done} of them amid the tasks: the same bytes each time")


def test_a_few_kills(tmp_path: Path, stub_url: str) -> None:
    kill_and_resume(tmp_path, stub_url, KILLS_IN_CI)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_many_kills(tmp_path: Path, stub_url: str) -> None:
    kill_and_resume(tmp_path, stub_url, KILLS)
