"""The Ollama API through the door, on fake models: statuses, texts, shapes."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from modeld.app import create_app
from modeld.backends import FakeChat, ModelFile, Shelf, fake_shelf
from modeld.settings import Settings
from schemas.errors import ErrorEnvelope
from services.testing import client_for

pytestmark = pytest.mark.anyio

CHAT = "smollm2:135m"
HI = [{"role": "user", "content": "one two three"}]


async def ready(client: httpx.AsyncClient) -> dict[str, Any]:
    """Wait until the models have been checked; the readiness by then."""
    async with asyncio.timeout(20):
        while "still being checked" in (response := await client.get("/readyz")).text:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    state: dict[str, Any] = response.json()
    return state


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings(body_bytes_max=4096, embed_inputs_max=8), shelf=fake_shelf())
    async with client_for(app) as client:
        await ready(client)
        yield client


def lines(response: httpx.Response) -> list[Any]:
    assert response.headers["content-type"].startswith("application/x-ndjson")
    assert response.content.endswith(b"\n")
    return [json.loads(part) for part in response.content.split(b"\n")[:-1]]


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("embed", {"model": "x", "input": "a"}, 404, "model 'x' not found"),
        ("chat", {"model": "x", "messages": HI}, 404, "model 'x' not found"),
        ("generate", {"model": "x", "prompt": "a"}, 404, "model 'x' not found"),
        ("show", {"model": "x"}, 404, "model 'x' not found"),
        ("chat", {"messages": HI}, 400, "model is required"),
        ("embed", {"model": "all-minilm", "input": 5}, 400, "invalid input type"),
        ("embed", {"model": "all-minilm", "input": ["a", 5]}, 400, "invalid input type"),
        ("embed", {"model": "all-minilm", "input": {"a": "b"}}, 400, "invalid input type"),
        (
            "embed",
            {"model": "all-minilm", "input": ["a", "b " * 40], "truncate": False},
            400,
            "input 1 of 42 tokens exceeds the context length of 16",
        ),
        ("embed", {"model": "all-minilm", "input": "a", "dimensions": 9}, 400, "1 to 8"),
        ("embed", {"model": "all-minilm", "input": "a", "dimensions": 0}, 400, "1 to 8"),
        ("embed", {"model": "all-minilm", "input": ["a"] * 9}, 400, "9 texts; at most 8"),
        ("embed", {"model": "all-minilm", "input": "nan"}, 500, "NaN or Inf"),
        ("embeddings", {"model": "all-minilm", "prompt": "nan"}, 500, "NaN or Inf"),
        ("embed", {"model": CHAT, "input": "a"}, 400, f'"{CHAT}" does not support embeddings'),
        ("chat", {"model": "all-minilm", "messages": HI}, 400, '"all-minilm" does not support chat'),
        ("generate", {"model": "all-minilm", "prompt": "a"}, 400, '"all-minilm" does not support generate'),
        (
            "chat",
            {"model": CHAT, "messages": HI, "tools": [{"type": "function"}]},
            400,
            f'"{CHAT}" does not support tools',
        ),
        (
            "chat",
            {"model": CHAT, "messages": [{"role": "tool", "content": "5"}]},
            400,
            f'"{CHAT}" does not support tools',
        ),
        ("chat", {"model": CHAT, "messages": HI, "think": True}, 400, f'"{CHAT}" does not support thinking'),
        ("chat", {"model": CHAT, "messages": HI, "think": "low"}, 400, "does not support thinking"),
        (
            "chat",
            {"model": CHAT, "messages": [{"role": "user", "content": "a", "images": ["aGk="]}]},
            400,
            "does not support vision",
        ),
        ("chat", {"model": CHAT, "messages": HI, "logprobs": True}, 400, "does not support logprobs"),
        ("generate", {"model": CHAT, "prompt": "a", "suffix": "b"}, 400, "does not support insert"),
        ("generate", {"model": CHAT, "prompt": "a", "context": [1]}, 400, "use /api/chat"),
        ("generate", {"model": CHAT, "prompt": "a", "template": "b"}, 400, "another template"),
        ("chat", {"model": CHAT, "messages": HI, "format": "xml"}, 400, "invalid format: 'xml'"),
        ("chat", {"model": CHAT, "messages": HI, "format": 3}, 400, "invalid format: 3"),
        (
            "chat",
            {"model": CHAT, "messages": HI, "options": {"temperature": "hot"}},
            400,
            'option "temperature" must be of type float32',
        ),
        (
            "chat",
            {"model": CHAT, "messages": HI, "options": {"num_predict": 1.5}},
            400,
            'option "num_predict" must be of type integer',
        ),
        (
            "chat",
            {"model": CHAT, "messages": HI, "options": {"stop": "x"}},
            400,
            'option "stop" must be of type array',
        ),
        ("chat", {"model": CHAT, "messages": HI, "options": {"num_ctx": 99}}, 400, "this server has 16"),
        (
            "chat",
            {"model": CHAT, "messages": [{"role": "user", "content": "a " * 20}]},
            400,
            "exceeds the context length of 16",
        ),
        ("chat", {"model": CHAT, "messages": HI, "stream": "yes"}, 400, "stream"),
        ("chat", {"model": CHAT, "messages": HI, "think": "yes"}, 400, "think"),
        ("embed", {"model": "all-minilm", "input": "a", "truncate": 1}, 400, "truncate"),
        ("embed", {"model": "all-minilm", "input": "a", "dimensions": "2"}, 400, "dimensions"),
        ("chat", {"model": CHAT, "messages": HI, "keep_alive": "300"}, 400, "missing unit in duration"),
        ("chat", {"model": CHAT, "messages": HI, "keep_alive": "soon"}, 400, "invalid duration"),
        ("chat", {"model": CHAT, "messages": HI, "keep_alive": True}, 400, "keep_alive"),
        ("chat", {"model": CHAT, "messages": [{"role": "robot", "content": "a"}]}, 400, "messages.0.role"),
    ],
)
async def test_an_error_has_ollamas_shape_status_and_words(
    client: httpx.AsyncClient, path: str, body: Any, status: int, text: str
) -> None:
    response = await client.post(f"/api/{path}", json=body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    assert set(response.json()) == {"error"}
    assert text in response.json()["error"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "chat",
            {"model": CHAT, "messages": HI, "stream": None, "options": {"seed": None, "temperature": None}},
        ),
        ("generate", {"model": CHAT, "prompt": "a", "raw": None, "system": None, "format": None}),
        ("embed", {"model": "all-minilm", "input": "a", "truncate": None, "dimensions": None}),
    ],
)
async def test_a_null_is_as_good_as_nothing_said(client: httpx.AsyncClient, path: str, body: Any) -> None:
    response = await client.post(f"/api/{path}", json=body)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("content", "status", "text"),
    [
        (b"", 400, "missing request body"),
        (b"{", 400, "not valid JSON"),
        (b'{"model": NaN}', 400, "not valid JSON"),
        (b"[]", 400, "not a JSON object"),
        (b" " * 5000, 413, "at most 4096"),
    ],
)
async def test_a_bad_body_is_refused_in_ollamas_shape(
    client: httpx.AsyncClient, content: bytes, status: int, text: str
) -> None:
    response = await client.post("/api/chat", content=content)
    assert response.status_code == status
    assert text in response.json()["error"]


async def test_what_is_not_ollamas_speaks_the_envelope(client: httpx.AsyncClient) -> None:
    for response in (
        await client.get("/api/chat"),
        await client.get("/api/nothing"),
        await client.get("/nothing"),
        await client.post("/healthz"),
    ):
        assert response.status_code in (404, 405)
        ErrorEnvelope.model_validate_json(response.content)


async def test_a_body_is_json_whatever_its_content_type(client: httpx.AsyncClient) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    body = json.dumps({"model": "all-minilm", "input": "a"})
    assert (await client.post("/api/embed", content=body, headers=form)).status_code == 200


@pytest.mark.parametrize("path", ["/", "/api/version", "/api/tags"])
async def test_head_is_get_without_the_body(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.head(path)).status_code == (await client.get(path)).status_code == 200


@pytest.mark.parametrize(
    "name",
    [
        "all-minilm",
        "all-minilm:latest",
        "all-minilm:l6-v2",
        "all-minilm:22m",
        "ALL-MiniLM",
        "library/all-minilm",
        "registry.ollama.ai/library/all-minilm:latest",
    ],
)
async def test_a_model_answers_to_all_its_names_and_echoes_the_one_used(
    client: httpx.AsyncClient, name: str
) -> None:
    body = (await client.post("/api/embed", json={"model": name, "input": "a"})).json()
    assert body["model"] == name
    assert len(body["embeddings"][0]) == 8


async def test_the_larger_smollm2_is_not_passed_off_as_the_small_one(client: httpx.AsyncClient) -> None:
    assert (await client.post("/api/chat", json={"model": "smollm2", "messages": HI})).status_code == 404


async def test_models_are_listed_shown_and_reported_when_loaded(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/api/tags")).json()["models"]
    assert [model["name"] for model in listed] == ["all-minilm:latest", CHAT]
    assert [model["capabilities"] for model in listed] == [["embedding"], ["completion"]]
    assert all(len(model["digest"]) == 64 for model in listed)
    assert [model["name"] for model in (await client.get("/api/ps")).json()["models"]] == [
        "all-minilm:latest"
    ]
    for key in ("model", "name"):
        shown = (await client.post("/api/show", json={key: "all-minilm"})).json()
        assert shown["model_info"]["fake.embedding_length"] == 8
        assert shown["details"]["context_length"] == 16


async def test_vectors_are_unit_in_order_and_cut_on_request(client: httpx.AsyncClient) -> None:
    texts = ["b b b b b", "", "a", "c c"]
    body = (await client.post("/api/embed", json={"model": "all-minilm", "input": texts})).json()
    assert len(body["embeddings"]) == 4
    for text, vector in zip(texts, body["embeddings"], strict=True):
        alone = (await client.post("/api/embed", json={"model": "all-minilm", "input": [text]})).json()
        assert alone["embeddings"][0] == vector
        assert sum(x * x for x in vector) == pytest.approx(1.0)
    assert body["prompt_eval_count"] == 7 + 2 + 3 + 4
    assert isinstance(body["total_duration"], int)
    small = (
        await client.post("/api/embed", json={"model": "all-minilm", "input": "a", "dimensions": 3})
    ).json()
    assert len(small["embeddings"][0]) == 3
    assert sum(x * x for x in small["embeddings"][0]) == pytest.approx(1.0)
    old = (await client.post("/api/embeddings", json={"model": "all-minilm", "prompt": "a"})).json()
    assert old == {"embedding": body["embeddings"][2]}


@pytest.mark.parametrize("body", [{}, {"input": ""}, {"input": []}, {"input": None}])
async def test_an_empty_input_loads_and_answers_no_vectors(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    response = await client.post("/api/embed", json={"model": "all-minilm", **body})
    assert response.status_code == 200
    assert response.json()["embeddings"] == []


async def test_a_long_text_is_truncated_unless_forbidden(client: httpx.AsyncClient) -> None:
    body = (await client.post("/api/embed", json={"model": "all-minilm", "input": "b " * 40})).json()
    assert body["prompt_eval_count"] == 16


async def test_chat_streams_by_default_with_metrics_on_the_last_line_only(client: httpx.AsyncClient) -> None:
    parts = lines(await client.post("/api/chat", json={"model": CHAT, "messages": HI}))
    assert [part["message"]["content"] for part in parts] == ["one", " two", " three", ""]
    assert all(part["message"]["role"] == "assistant" for part in parts)
    assert [part["done"] for part in parts] == [False, False, False, True]
    assert all("eval_count" not in part for part in parts[:-1])
    assert parts[-1]["done_reason"] == "stop"
    assert parts[-1]["prompt_eval_count"] == parts[-1]["eval_count"] == 3
    for name in ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration"):
        assert isinstance(parts[-1][name], int)


async def test_generate_streams_by_default(client: httpx.AsyncClient) -> None:
    parts = lines(await client.post("/api/generate", json={"model": CHAT, "prompt": "one two"}))
    assert [part["response"] for part in parts] == ["one", " two", ""]


async def test_without_stream_the_answer_is_one_object(client: httpx.AsyncClient) -> None:
    body = {"model": CHAT, "messages": HI, "stream": False, "tools": [], "options": {"num_predict": 2}}
    response = await client.post("/api/chat", json=body)
    assert response.headers["content-type"] == "application/json"
    assert response.json()["message"] == {"role": "assistant", "content": "one two"}
    assert response.json()["done_reason"] == "length"
    body = {"model": CHAT, "prompt": "one", "raw": True, "stream": False, "format": "json"}
    assert (await client.post("/api/generate", json=body)).json()["response"] == "{}"


async def test_lines_hold_no_character_that_a_client_might_split_at(client: httpx.AsyncClient) -> None:
    text = "a\u0085b\u2028c\u2029d\U0001f600"
    response = await client.post("/api/generate", json={"model": CHAT, "prompt": text})
    assert response.content.isascii()
    assert json.loads(next(response.iter_lines()))["response"] == text


@pytest.mark.parametrize(("keep_alive", "reason"), [("5m", "load"), (0, "unload"), ("0", "unload")])
async def test_no_messages_only_load_or_unload(
    client: httpx.AsyncClient, keep_alive: Any, reason: str
) -> None:
    for path, empty in (("chat", {"messages": []}), ("generate", {"prompt": ""})):
        body = {"model": CHAT, "keep_alive": keep_alive, **empty}
        answer = (await client.post(f"/api/{path}", json=body)).json()
        assert (answer["done"], answer["done_reason"]) == (True, reason)
        names = [model["name"] for model in (await client.get("/api/ps")).json()["models"]]
        assert (CHAT in names) == (reason == "load")


async def test_a_full_queue_is_a_503_that_says_server_busy() -> None:
    chat = FakeChat(hold=True)
    settings = Settings(chat_slots=1, chat_queue_max=0)
    async with client_for(create_app(settings, shelf=fake_shelf(chat=chat))) as client:
        await ready(client)
        async with Occupied(client, chat):
            response = await client.post("/api/chat", json={"model": CHAT, "messages": HI})
            assert response.status_code == 503
            assert response.json()["error"].startswith("server busy")
            assert int(response.headers["retry-after"]) >= 1
        assert (await client.post("/api/chat", json={"model": CHAT, "messages": HI})).status_code == 200


async def test_a_model_that_is_not_installed_is_not_found_and_says_why() -> None:
    async with client_for(create_app(Settings(), shelf=_without_chat())) as client:
        state = await ready(client)
        assert state["status"] == "degraded"
        assert state["dependencies"][CHAT]["reason"].startswith("package no_such_package is not installed")
        response = await client.post("/api/chat", json={"model": CHAT, "messages": HI})
        assert response.status_code == 404
        assert response.json()["error"].startswith(f"model '{CHAT}' not found: package no_such_package")
        assert [m["name"] for m in (await client.get("/api/tags")).json()["models"]] == ["all-minilm:latest"]


def _without_chat() -> Shelf:
    shelf = fake_shelf()
    missing = ModelFile("no_such_package", "weights", "0" * 64)

    def inspect() -> Any:
        return missing.verified()

    return dataclasses.replace(shelf, chats=(dataclasses.replace(shelf.chats[0], inspect=inspect),))


class Occupied:
    """One generation that has begun and does not end before the block does."""

    def __init__(self, client: httpx.AsyncClient, chat: FakeChat) -> None:
        self._client = client
        self._chat = chat

    async def __aenter__(self) -> None:
        body = {"model": CHAT, "messages": HI}
        self._task = asyncio.create_task(self._client.post("/api/chat", json=body))
        while not self._chat.running:  # noqa: ASYNC110 - a thread sets it
            await asyncio.sleep(0.005)

    async def __aexit__(self, *_: object) -> None:
        self._chat.go.set()
        assert (await self._task).status_code == 200
