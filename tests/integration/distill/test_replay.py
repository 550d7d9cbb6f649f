"""Replays with the real chatd and validators, on what those recorded: from a first answer to a gate."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import pytest

from services.testing import free_port
from tests.processes import Running, running
from tests.unit.distill.builders import Json

pytestmark = pytest.mark.enable_socket

SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
QUESTIONS = 8
PATIENCE_S = 60.0


@dataclass(frozen=True)
class House:
    chatd: Running
    distill: Running

    def finish(self, **request: Any) -> Json:
        asked = httpx.post(f"{self.distill.url}/v1/distill/jobs", json=request, trust_env=False)
        assert asked.status_code == 202, asked.text
        path = f"{self.distill.url}/v1/distill/jobs/{asked.json()['job_id']}"
        deadline = time.monotonic() + PATIENCE_S
        while (job := httpx.get(path, trust_env=False).json())["state"] not in ("done", "failed"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return dict(job)

    def done(self, **request: Any) -> Json:
        job = self.finish(**request)
        assert job["state"] == "done", job
        return job

    def ask(self, number: int) -> str:
        """One task, done by the strong model; the run's id."""
        body = {
            "models": ["ollama/strong"],
            "messages": [
                {"role": "system", "content": "Numbers matter."},
                {"role": "user", "content": f"{'again ' * number}say the number {number}"},
            ],
            "validate": {"kind": "json_schema", "context": {"schema": SCHEMA}},
        }
        answer = httpx.post(f"{self.chatd.url}/v1/iterate", json=body, timeout=60, trust_env=False)
        assert answer.json()["ok"], answer.text
        return str(answer.json()["attempts"][0]["run_id"])

    def wait_for(self, run_id: str) -> Json:
        deadline = time.monotonic() + PATIENCE_S
        while (answer := httpx.get(f"{self.distill.url}/v1/runs/{run_id}", trust_env=False)).is_error:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        run: Json = answer.json()["run"]
        return run

    def results(self, replay_id: str) -> list[Json]:
        path = f"{self.distill.url}/v1/distill/replays/{replay_id}/files/tasks.jsonl"
        return [orjson.loads(line) for line in httpx.get(path, trust_env=False).content.splitlines()]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    with running("tests.stubs.talkers", folder) as talkers, running("validators", folder) as validators:
        port = free_port()
        env = {
            "OLLAMA_HOST": talkers.url,
            "CHATD_VALIDATORS_URL": validators.url,
            "CHATD_DISTILL_URL": f"http://127.0.0.1:{port}",
        }
        with running("chatd", folder, env=env) as chatd:
            env = {
                "DISTILL_CHATD_URL": chatd.url,
                "DISTILL_VALIDATORS_URL": validators.url,
                "DISTILL_DISK_FREE_BYTES_MIN": "0",
            }
            with running("distill", folder, port=port, env=env) as distill:
                house = House(chatd, distill)
                for run_id in [house.ask(number) for number in range(QUESTIONS)]:
                    house.wait_for(run_id)
                house.done(stage="materialize")
                house.done(stage="score")
                yield house


def test_a_weaker_model_is_found_to_be_worse_and_its_runs_are_recorded(house: House) -> None:
    common: dict[str, Any] = {"stage": "replay", "category": "accepted"}
    alone = house.done(**common, models=["ollama/small"], name="small", repeats=2)
    assert alone["counts"]["local_pass"] == alone["counts"]["failed"] == QUESTIONS
    helped = house.done(**common, models=["ollama/small", "ollama/strong"], name="helped", attempts_max=3)
    assert helped["counts"]["escalated_pass"] == helped["counts"]["local_pass"] == QUESTIONS / 2
    house.done(stage="replay", recorded=True, like="helped", name="helped.recorded")
    gated = house.finish(
        stage="compare", baseline="recorded", current="helped", gate="better at 95 %", counting="any"
    )
    assert gated["error"]["code"] == "gate_failed"
    assert gated["comparison"]["verdict"] == "no evidence"

    (escalated, *_) = (one for one in house.results("helped") if one["outcome"] == "escalated_pass")
    runs = [house.wait_for(attempt["run_id"]) for attempt in escalated["attempts"]]
    assert {run["episode_id"] for run in runs} == {escalated["episode_id"]}
    assert [run["model"]["digest"] for run in runs][-1] == "digest-strong"
    system = runs[0]["request"]["messages"][0]["content"]
    assert system.startswith("Numbers matter.\n\nAnswer with one JSON document")
    assert system.count("Answer with one JSON document") == 1  # what chatd added was not taken for the task

    house.done(stage="materialize")
    house.done(stage="score")
    again = house.done(**common, models=["ollama/strong"], name="again")
    assert again["counts"]["in"] == QUESTIONS  # replays are no tasks of later replays
