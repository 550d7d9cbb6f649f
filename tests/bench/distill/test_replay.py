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
ADDED_MS_MAX = 2.0
CASSETTE_S_MAX = 60.0
SENT_AT_ONCE = 2000


@dataclass(frozen=True)
class House:
    """A distill with evidence of `TASKS` tasks, and models that take no time."""

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
    with running("tests.stubs.iterate", folder) as stub:
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


@pytest.mark.parametrize("concurrency", [1, 4])
def test_what_a_replay_adds_to_its_models(house: House, concurrency: int) -> None:
    """The models take no time, so all of it is the replay's, the connection's and the stub's."""
    common: dict[str, Any] = {"stage": "replay", "models": ["stub"], "concurrency": concurrency}
    _, choosing = house.timed(**common, limit=1, name="one")
    job, took = house.timed(**common, limit=TASKS_ASKED)
    added_ms = (took - choosing) * 1000 / (job["counts"]["in"] - 1)
    print(f"\n{job['counts']['in']} tasks, {concurrency} at a time: {added_ms:.2f} ms each,")
    print(f"and {choosing:.2f} s to choose them from {TASKS}")
    assert added_ms <= ADDED_MS_MAX


def test_tasks_from_a_cassette(house: House) -> None:
    asked: dict[str, Any] = {"stage": "replay", "models": ["stub"], "cassette": "bench"}
    _, recording = house.timed(**asked, mode="refresh", concurrency=8)
    job, took = house.timed(**asked, mode="cassette")
    print(f"\n{job['counts']['in']} tasks: recorded in {recording:.1f} s, from the cassette in {took:.1f} s")
    assert job["counts"]["in"] == TASKS
    assert took <= CASSETTE_S_MAX
