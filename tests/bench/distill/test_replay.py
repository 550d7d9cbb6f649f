"""What a replay adds to the time of its models, and how fast tasks come from a cassette.

`REPLAY_TASKS` sets how many tasks come from the cassette (10,000).
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.processes import Running, running
from tests.unit.distill.builders import Json, ndjson
from tests.unit.distill.replay.arms import orders

pytestmark = [pytest.mark.bench, pytest.mark.enable_socket, pytest.mark.timeout(1200)]

TASKS = int(os.environ.get("REPLAY_TASKS", "10000"))
TASKS_ASKED = 1000
LATENCY_MS = 10.0
ADDED_MS_MAX = 2.0
CASSETTE_S_MAX = 60.0
SENT_AT_ONCE = 2000


@dataclass(frozen=True)
class House:
    """A distill with evidence of `TASKS` tasks, and models that take a set time."""

    distill: Running

    def timed(self, **request: Any) -> tuple[Json, float]:
        """A job, and the seconds it took."""
        started = time.perf_counter()
        asked = httpx.post(f"{self.distill.url}/v1/distill/jobs", json=request, trust_env=False)
        assert asked.status_code == 202, asked.text
        path = f"{self.distill.url}/v1/distill/jobs/{asked.json()['job_id']}"
        with httpx.Client(trust_env=False) as client:
            while (job := client.get(path).json())["state"] not in ("done", "failed"):
                time.sleep(0.02)
        assert job["state"] == "done", job
        return dict(job), time.perf_counter() - started


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("replay")
    with running("tests.stubs.iterate", folder, env={"LATENCY_MS": str(LATENCY_MS)}) as stub:
        env = {
            "DISTILL_CHATD_URL": stub.url,
            "DISTILL_VALIDATORS_URL": stub.url,
            "DISTILL_DISK_FREE_BYTES_MIN": "0",
            "DISTILL_LOG_LEVEL": "warning",
        }
        with running("distill", folder, env=env) as distill:
            house = House(distill)
            records = orders(TASKS)
            for start in range(0, TASKS, SENT_AT_ONCE):
                body = ndjson(records[start : start + SENT_AT_ONCE])
                headers = {"content-type": "application/x-ndjson"}
                answer = httpx.post(
                    f"{distill.url}/v1/runs", content=body, headers=headers, timeout=60, trust_env=False
                )
                assert answer.json()["accepted"] > 0
            house.timed(stage="materialize")
            house.timed(stage="score")
            house.timed(stage="replay", models=["stub"], limit=1, name="groups-are-known")
            yield house


def test_what_a_replay_adds_to_its_models(house: House) -> None:
    """One task at a time: what is beyond the models' time is the replay's, and the connection's."""
    job, took = house.timed(stage="replay", models=["stub"], limit=TASKS_ASKED, concurrency=1)
    _, few_took = house.timed(stage="replay", models=["stub"], limit=1, name="selection")
    added_ms = (took - few_took) * 1000 / (job["counts"]["in"] - 1) - LATENCY_MS
    print(f"\n{job['counts']['in']} tasks in {took:.1f} s: {added_ms:.2f} ms added to each")
    print(f"choosing them from {TASKS}: {few_took:.2f} s")
    assert added_ms <= ADDED_MS_MAX


def test_tasks_from_a_cassette(house: House) -> None:
    asked: dict[str, Any] = {"stage": "replay", "models": ["stub"], "cassette": "bench"}
    _, recording = house.timed(**asked, mode="refresh", concurrency=64)
    job, took = house.timed(**asked, mode="cassette")
    print(f"\n{job['counts']['in']} tasks: recorded in {recording:.1f} s, from the cassette in {took:.1f} s")
    assert job["counts"]["in"] == TASKS
    assert took <= CASSETTE_S_MAX
