"""The official `ollama` client, unmodified, against a real process with the installed models."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import ollama
import pytest

from tests.processes import Running, running

pytestmark = pytest.mark.enable_socket

CHAT = "smollm2:135m"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 24},
        "age": {"type": "integer", "minimum": 18, "maximum": 70},
        "role": {"enum": ["welder", "driver"]},
    },
    "required": ["name", "age", "role"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    environment = {"MODELD_CONTEXT_TOKENS": "512", "MODELD_CHAT_SLOTS": "1", "MODELD_CHAT_QUEUE_MAX": "0"}
    with running("modeld", tmp_path_factory.mktemp("modeld"), env=environment) as server:
        server.wait_until_ready()
        yield server


@pytest.fixture
def client(server: Running) -> Iterator[ollama.Client]:
    with ollama.Client(server.url, trust_env=False) as client:
        yield client


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_models_are_listed_and_shown(client: ollama.Client) -> None:
    models = {model.model: model for model in client.list().models}
    assert set(models) == {"all-minilm:latest", CHAT}
    minilm = models["all-minilm:latest"]
    assert minilm.digest == "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
    assert minilm.size == 22_928_619
    shown = client.show("all-minilm")
    assert shown.capabilities == ["embedding"]
    assert shown.modelinfo is not None
    assert shown.modelinfo["bert.embedding_length"] == 384
    assert client.show(CHAT).capabilities == ["completion"]


def test_texts_are_embedded_by_their_meaning(client: ollama.Client) -> None:
    texts = ["Forklift operator, night shift", "Reach truck driver for the late shift", "Pastry chef"]
    answer = client.embed("all-minilm", texts, truncate=False)
    first, near, far = (np.array(vector) for vector in answer.embeddings)
    assert first @ near > first @ far + 0.2
    assert np.linalg.norm(answer.embeddings, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert isinstance(answer.total_duration, int)
    assert len(client.embed("all-minilm", "a", dimensions=64).embeddings[0]) == 64
    assert client.embed("all-minilm", "").embeddings == []
    assert len(client.embeddings("all-minilm", "a").embedding) == 384


def test_an_answer_comes_whole_or_in_pieces_and_the_same(client: ollama.Client) -> None:
    options = {"temperature": 0, "num_predict": 12, "seed": 1}
    whole = client.chat(CHAT, ask("Name a tool."), options=options)
    pieces = list(client.chat(CHAT, ask("Name a tool."), options=options, stream=True))
    assert "".join(piece.message.content or "" for piece in pieces) == whole.message.content
    assert [piece.done for piece in pieces[:-1]] == [False] * (len(pieces) - 1)
    assert pieces[-1].done
    assert pieces[-1].done_reason == whole.done_reason == "length"
    assert whole.eval_count == pieces[-1].eval_count == 12
    loaded = {model.model: model for model in client.ps().models}
    assert loaded[CHAT].context_length == 512
    assert loaded[CHAT].expires_at is not None


def test_generate_continues_raw_text_and_ends_before_a_stop_text(client: ollama.Client) -> None:
    options: dict[str, Any] = {"temperature": 0, "num_predict": 12}
    whole = client.generate(CHAT, "Once upon a time", raw=True, options=options).response or ""
    stop = whole.split()[3]
    cut = client.generate(CHAT, "Once upon a time", raw=True, options={**options, "stop": [stop]})
    assert cut.done_reason == "stop"
    assert cut.response == whole[: whole.index(stop)]
    assert client.generate(CHAT, "").done_reason == "load"


@pytest.mark.parametrize("seed", range(3))
def test_a_constrained_answer_conforms(client: ollama.Client, seed: int) -> None:
    options = {"temperature": 1.0, "seed": seed, "num_predict": 80}
    answer = client.chat(CHAT, ask("Describe a worker as JSON."), format=SCHEMA, options=options)
    worker = json.loads(answer.message.content or "")
    assert set(worker) == {"name", "age", "role"}
    assert 18 <= worker["age"] <= 70
    assert worker["role"] in ("welder", "driver")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"type": "string", "pattern": "(?=a)b"},
        {"$ref": "#/nowhere"},
        {"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": True},
        {"type": "integer", "minimum": 5, "maximum": 3},
    ],
)
def test_a_schema_that_cannot_be_enforced_is_refused_not_ignored(
    client: ollama.Client, schema: dict[str, Any]
) -> None:
    with pytest.raises(ollama.ResponseError, match="cannot be enforced") as refused:
        client.chat(CHAT, ask("Hello"), format=schema, options={"num_predict": 8})
    assert refused.value.status_code == 400


def test_failures_are_the_clients_own_errors(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match=r"model 'llama3\.2' not found") as missing:
        client.chat("llama3.2", ask("Hello"))
    assert missing.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match='"all-minilm" does not support chat'):
        client.chat("all-minilm", ask("Hello"))
    with pytest.raises(ollama.ResponseError, match="exceeds the context length"):
        client.embed("all-minilm", "welder " * 400, truncate=False)
    with pytest.raises(ollama.ResponseError, match="exceeds the context length") as long:
        list(client.chat(CHAT, ask("welder " * 600), stream=True))
    assert long.value.status_code == 400


def test_leaving_in_the_middle_frees_the_only_slot(server: Running, client: ollama.Client) -> None:
    numbers = {"type": "array", "items": {"type": "integer"}, "minItems": 180}  # no answer may end early
    endless = {"model": CHAT, "messages": ask("Count."), "format": numbers}
    with httpx.stream("POST", f"{server.url}/api/chat", json=endless, trust_env=False, timeout=60) as stream:
        pieces = stream.iter_raw()  # to drop it would already be to leave
        assert next(pieces)
        busy = httpx.post(f"{server.url}/api/chat", json=endless, trust_env=False, timeout=60)
        assert busy.status_code == 503
        assert busy.json()["error"].startswith("server busy")
        assert "retry-after" in busy.headers
    left = time.monotonic()
    while not _answers(client):
        assert time.monotonic() - left < 30
        time.sleep(0.02)


def _answers(client: ollama.Client) -> bool:
    try:
        return client.chat(CHAT, ask("Hi"), options={"num_predict": 1}).done or False
    except ollama.ResponseError as error:
        if error.status_code != 503:
            raise
        return False


def test_unloading_gives_the_model_up_and_the_next_call_brings_it_back(client: ollama.Client) -> None:
    assert client.chat(CHAT, [], keep_alive=0).done_reason == "unload"
    assert CHAT not in {model.model for model in client.ps().models}
    assert client.chat(CHAT, ask("Hi"), options={"num_predict": 1}).eval_count == 1


def test_output_is_json_lines_and_sigterm_ends_it_in_order(tmp_path: Path) -> None:
    with running("modeld", tmp_path) as server:
        body = {"model": CHAT, "messages": ask("Hi"), "stream": False, "options": {"num_predict": 2}}
        for _ in range(600):
            response = httpx.post(f"{server.url}/api/chat", json=body, trust_env=False, timeout=60)
            if response.status_code == 200:
                break
            time.sleep(0.05)
        assert response.status_code == 200
        assert server.stop() == 0
        events = [json.loads(line)["event"] for line in server.log.read_text().splitlines()]
    assert "model loaded" in events
    assert events[-1] == "stopped"
