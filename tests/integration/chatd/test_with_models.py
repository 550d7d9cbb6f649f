"""The real neighbours: a small model behind the Ollama API, validators that judge, distill that keeps."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.processes import running

pytest.importorskip("xllamacpp", reason="modeld's chat model is not installed")

CHAT = "ollama/smollm2:135m"
USER = [{"role": "user", "content": "Text Ana at +13125550143: Hi Ana, your shift starts at 7am."}]


@dataclass(frozen=True)
class House:
    chatd: httpx.Client
    distill: httpx.Client

    def run(self, run_id: str) -> dict[str, Any]:
        """The record as distill has it, once it has."""
        deadline = time.monotonic() + 20
        while (answer := self.distill.get(f"/v1/runs/{run_id}")).status_code == 404:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        record: dict[str, Any] = answer.json()["run"]
        return record


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder: Path = tmp_path_factory.mktemp("house")
    with (
        running("modeld", folder) as modeld,
        running("validators", folder) as validators,
        running("distill", folder) as distill,
        running(
            "chatd",
            folder,
            env={
                "OLLAMA_HOST": modeld.url,
                "CHATD_VALIDATORS_URL": validators.url,
                "CHATD_DISTILL_URL": distill.url,
            },
        ) as chatd,
        httpx.Client(base_url=chatd.url, timeout=100, trust_env=False) as client,
        httpx.Client(base_url=distill.url, trust_env=False) as keeper,
    ):
        modeld.wait_until_ready()
        yield House(client, keeper)


def test_a_constrained_answer_and_its_record(house: House) -> None:
    schema = {
        "type": "object",
        "properties": {"certain": {"type": "boolean"}},
        "required": ["certain"],
        "additionalProperties": False,
    }
    response = house.chatd.post(
        "/v1/chat/completions",
        json={
            "model": CHAT,
            "messages": USER,
            "max_tokens": 40,
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
        },
    )
    assert response.status_code == 200
    record = house.run(response.headers["x-run-id"])
    assert record["output"]["content"] == response.json()["choices"][0]["message"]["content"]
    assert record["model"]["digest"]
    assert record["usage"]["prompt_tokens"] > 0


def test_what_the_model_cannot_do_is_said_by_name(house: House) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    response = house.chatd.post(
        "/v1/chat/completions", json={"model": CHAT, "messages": USER, "tools": tools}
    )
    assert (response.status_code, response.json()["error"]["param"]) == (400, "tools")


def test_iterating_leaves_an_episode_of_judged_runs(house: House) -> None:
    schema = {
        "type": "object",
        "properties": {"segments": {"const": 1}},
        "required": ["segments"],
        "additionalProperties": False,
    }
    response = house.chatd.post(
        "/v1/iterate",
        json={
            "model": CHAT,
            "messages": USER,
            "validate": {"kind": "json_schema", "context": {"schema": schema}},
            "temperature": 0,
        },
    )
    body = response.json()
    assert response.status_code == 200, body
    assert body["ok"] is (body["outcome"] != "failed")
    for number, attempt in enumerate(body["attempts"], start=1):
        record = house.run(attempt["run_id"])
        assert record["episode_id"] == body["episode_id"]
        assert record["ext"]["attempt"] == number
        assert record["verdict"]["findings"] == attempt["findings"]


def test_the_gate_lets_go_what_the_model_was_made_to_say_right(house: House) -> None:
    schema = {
        "type": "object",
        "properties": {"segments": {"const": 1}},
        "required": ["segments"],
        "additionalProperties": False,
    }
    body = {
        "model": CHAT,
        "messages": USER,
        "max_tokens": 60,
        "temperature": 0,
        "validate": {"kind": "json_schema", "context": {"schema": schema}},
    }
    held = house.chatd.post("/v1/chat/completions", json=body)
    assert held.headers["x-verdict"] == "rejected"  # left to itself the model talks
    assert held.json()["choices"][0]["message"]["content"] is None
    record = house.run(held.headers["x-run-id"])
    assert record["output"]["content"] not in held.text
    body["validate"]["attempts_max"] = 2  # type: ignore[index] # it is a mapping
    repaired = house.chatd.post("/v1/chat/completions", json={**body, "stream": True})
    assert repaired.headers["x-verdict"] == "accepted"
    assert '{\\"segments\\":1}' in repaired.text
    assert house.run(repaired.headers["x-run-id"])["ext"]["repair_of_run_id"]
