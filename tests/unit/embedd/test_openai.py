"""An OpenAI-compatible server behind embedd: the same cache, the same guarantees."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest
from pydantic import SecretStr

from embedd.app import create_app
from embedd.settings import Settings
from services.testing import client_for
from tests.stubs.ollama import Reply, said, stubs
from tests.stubs.openai import OpenAIStub

pytestmark = [pytest.mark.anyio, pytest.mark.enable_socket]


@asynccontextmanager
async def client_before(stub: OpenAIStub) -> AsyncIterator[httpx.AsyncClient]:
    async with stubs(stub):
        settings = Settings(
            ollama_url="http://127.0.0.1:1",
            openai_url=f"{stub.url}/v1",
            openai_api_key=SecretStr("sk-secret"),
            busy_pause_s=0.01,
        )
        async with client_for(create_app(settings)) as client:
            yield client


async def ask(client: httpx.AsyncClient, *texts: str, **options: object) -> httpx.Response:
    body = {"model": "openai/large", "input": list(texts), **options}
    return await client.post("/v1/embeddings", json=body)


async def test_vectors_come_in_order_are_cached_and_the_key_is_sent() -> None:
    stub = OpenAIStub()
    async with client_before(stub) as client:
        first = await ask(client, "a", "b", "c")
        second = await ask(client, "c", "b", dimensions=3)
        ready = (await client.get("/readyz")).json()
    rows = [item["embedding"] for item in first.json()["data"]]
    np.testing.assert_allclose(rows, [stub.vector(text) for text in "abc"], rtol=1e-6)
    assert first.headers["x-model-digest"].startswith("sha256:")
    assert first.json()["usage"]["prompt_tokens"] == 3
    assert second.headers["x-cache"] == "hits=2 misses=0"
    assert stub.calls == [["a", "b", "c"]]
    assert all("authorization: Bearer sk-secret" in head for head in stub.heads)
    assert ready["status"] == "degraded"  # no Ollama, and that is said
    assert ready["dependencies"]["backends"]["ok"]


async def test_a_bad_text_fails_alone_and_truncation_is_refused() -> None:
    stub = OpenAIStub()
    async with client_before(stub) as client:
        bad = await ask(client, "a", "too long", "b")
        good = await ask(client, "a", "b")
        cut = await ask(client, "c", truncate=True)
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "input.1")
    assert good.headers["x-cache"] == "hits=2 misses=0"
    assert (cut.status_code, cut.json()["error"]["param"]) == (400, "truncate")


ZERO = {"index": 0, "embedding": [0.0] * 8}


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (said(401, {"error": {"message": "bad key"}}), 502),
        (said(404, {"error": {"message": "no model"}}), 404),
        (said(500, {"error": {"message": "boom"}}), 502),
        (Reply(502, b"<html>"), 502),
        (Reply(200, b"<html>"), 502),
        (said(200, {"data": []}), 502),
        (said(200, {"data": None}), 502),
        (said(200, {"data": [5]}), 502),
        (said(200, {"data": [{"index": 0, "embedding": "!!"}]}), 502),
        (said(200, {"data": [{"index": 0, "embedding": "AAA="}]}), 502),
        (said(200, {"data": [{"index": 1, "embedding": [1.0]}]}), 502),
        (said(200, {"data": [ZERO]}), 502),
        (said(200, {"data": [{"index": 0, "embedding": [1.0, 0.0]}]}), 502),
    ],
)
async def test_a_wrong_answer_never_becomes_a_vector_and_is_forgotten(reply: Reply, status: int) -> None:
    stub = OpenAIStub(replies=[reply])
    async with client_before(stub) as client:
        wrong = await ask(client, "a")
        right = await ask(client, "a")
    assert wrong.status_code == status, wrong.text
    assert right.headers["x-cache"] == "hits=0 misses=1"


async def test_a_provider_that_limits_us_is_tried_again_after_a_pause() -> None:
    limited = said(429, {"error": {"message": "slow down"}})
    stub = OpenAIStub(replies=[limited, limited])
    async with client_before(stub) as client:
        answer = await ask(client, "a")
        stub.replies = [limited] * 3
        refused = await ask(client, "b")
    assert answer.status_code == 200
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
