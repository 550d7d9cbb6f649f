"""embedd through its door: whatever is cached, shared or failing, an answer is right or refused."""

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from embedd.app import create_app
from embedd.backends import Backend, Computed, FakeBackend, ModelInfo, OllamaBackend
from embedd.engine import ENTRY_OVERHEAD_BYTES, Engine, Metrics, apportioned, cache_key
from embedd.settings import Settings
from services.errors import InvalidRequest, NotFound, PlatformError, UpstreamError
from services.http import PeerClient
from services.testing import client_for

pytestmark = pytest.mark.anyio


def engine_on(backend: Backend, **options: Any) -> Engine:
    defaults: dict[str, Any] = {
        "cache_bytes_max": 1 << 20,
        "batch_items_max": 4,
        "waiting_max": 100,
        "digest_ttl_s": 60.0,
    }
    return Engine(backend, Metrics(CollectorRegistry()), **(defaults | options))


class GatedBackend(FakeBackend):
    """Answers only when the test opens the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def embed(self, model: str, texts: Sequence[str]) -> Computed:
        await self.gate.wait()
        return await super().embed(model, texts)


async def ask(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("/v1/embeddings", json={"model": "fake", **body})


async def test_vectors_come_in_order_and_the_second_time_from_the_cache() -> None:
    backend = FakeBackend()
    async with client_for(create_app(Settings(), backend=backend)) as client:
        first = await ask(client, input=["one", "two", "one"])
        second = await ask(client, input=["two", "three"])
    assert first.headers["x-cache"] == "hits=0 misses=3"
    assert second.headers["x-cache"] == "hits=1 misses=1"
    assert first.headers["x-model-digest"] == "sha256:0"
    assert backend.calls == [["one", "two"], ["three"]]
    vectors = [item["embedding"] for item in first.json()["data"]]
    for vector, text in zip(vectors, ["one", "two", "one"], strict=True):
        np.testing.assert_allclose(vector, backend.vector(text), rtol=1e-6)
    assert [item["index"] for item in first.json()["data"]] == [0, 1, 2]
    assert first.json()["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


async def test_base64_holds_the_same_vector() -> None:
    backend = FakeBackend()
    async with client_for(create_app(Settings(), backend=backend)) as client:
        answer = (await ask(client, input="one", encoding_format="base64")).json()
    vector = np.frombuffer(base64.b64decode(answer["data"][0]["embedding"]), "<f4")
    np.testing.assert_array_equal(vector, backend.vector("one"))


async def test_fewer_dimensions_are_cut_and_normalised_again() -> None:
    backend = FakeBackend()
    async with client_for(create_app(Settings(), backend=backend)) as client:
        await ask(client, input="one")
        answer = await ask(client, input="one", dimensions=3)
        refused = await ask(client, input="one", dimensions=9)
    vector = answer.json()["data"][0]["embedding"]
    expected = backend.vector("one")[:3]
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), rtol=1e-6)
    assert answer.headers["x-cache"] == "hits=1 misses=0"
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "dimensions")


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"input": ""}, 400, "invalid_request", "input.0"),
        ({"input": ["ok", "  "]}, 400, "invalid_request", "input.1"),
        ({"input": []}, 400, "invalid_request", "input"),
        ({"input": [1, 2]}, 400, "token_input", "input"),
        ({"input": [[1], [2]]}, 400, "token_input", "input"),
        ({"input": ["x"] * 2049}, 400, "invalid_request", "input"),
        ({"input": "x" * 200_001}, 400, "invalid_request", "input.0"),
        ({"input": "x", "model": "none"}, 404, "model_not_found", "model"),
        ({"input": "x", "model": ""}, 400, "invalid_request", "model"),
        ({"input": "x", "dimensions": 0}, 400, "invalid_request", "dimensions"),
        ({"input": "x", "encoding_format": "hex"}, 400, "invalid_request", "encoding_format"),
        ({"input": "poison"}, 502, "upstream_failed", None),
    ],
)
async def test_what_cannot_be_embedded_is_refused_by_name(
    body: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    async with client_for(create_app(Settings(), backend=FakeBackend())) as client:
        response = await ask(client, **body)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param)


async def test_unknown_fields_are_ignored_and_the_provider_prefix_is_understood() -> None:
    async with client_for(create_app(Settings(), backend=FakeBackend())) as client:
        response = await ask(client, input="x", model="ollama/fake", user="u", mood="good")
    assert response.status_code == 200
    assert response.json()["model"] == "ollama/fake"


async def test_a_text_asked_for_by_many_at_once_is_computed_once() -> None:
    backend = GatedBackend()
    engine = engine_on(backend)
    waiters = [asyncio.ensure_future(engine.embed("fake", ["same", str(number % 2)])) for number in range(6)]
    await asyncio.sleep(0.01)
    waiters[0].cancel()  # the one whose call it is
    backend.gate.set()
    done = await asyncio.gather(*waiters[1:])
    assert sorted(text for call in backend.calls for text in call) == ["0", "1", "same"]
    for number, embedded in enumerate(done, start=1):
        np.testing.assert_array_equal(embedded.vectors[0], backend.vector("same"))
        np.testing.assert_array_equal(embedded.vectors[1], backend.vector(str(number % 2)))


async def test_a_failure_reaches_all_who_wait_and_is_forgotten() -> None:
    backend = GatedBackend()
    engine = engine_on(backend)
    waiters = [asyncio.ensure_future(engine.embed("fake", ["poison"])) for _ in range(3)]
    await asyncio.sleep(0.01)
    backend.gate.set()
    outcomes = await asyncio.gather(*waiters, return_exceptions=True)
    assert all(isinstance(outcome, UpstreamError) for outcome in outcomes)
    with pytest.raises(UpstreamError):
        await engine.embed("fake", ["poison"])
    assert backend.calls == [["poison"], ["poison"]]


async def test_a_full_queue_says_so() -> None:
    backend = GatedBackend()
    engine = engine_on(backend, waiting_max=2)
    first = asyncio.ensure_future(engine.embed("fake", ["a", "b"]))
    await asyncio.sleep(0.01)
    with pytest.raises(PlatformError, match="at most 2 may"):
        await engine.embed("fake", ["c"])
    backend.gate.set()
    await first


async def test_a_new_model_behind_the_name_makes_old_vectors_unreachable() -> None:
    backend = FakeBackend()
    engine = engine_on(backend, digest_ttl_s=0.0)
    before = await engine.embed("fake", ["a"])
    backend.digest = "sha256:1"
    after = await engine.embed("fake", ["a"])
    assert (after.model_digest, after.hits) == ("sha256:1", 0)
    assert not np.array_equal(before.vectors, after.vectors)


async def test_the_cache_stays_within_its_bytes() -> None:
    room = 3 * (8 * 4 + ENTRY_OVERHEAD_BYTES)
    engine = engine_on(FakeBackend(), cache_bytes_max=room)
    await engine.embed("fake", ["a", "b", "c", "d"])
    again = await engine.embed("fake", ["d", "c", "b", "a"])
    assert (again.hits, again.misses) == (3, 1)


@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8), min_size=1, max_size=6),
    st.integers(1, 5),
    st.integers(0, 4),
)
@settings(max_examples=60, deadline=None)
def test_any_mix_of_hits_misses_and_callers_equals_no_cache(
    requests: list[list[str]], batch_items_max: int, entries: int
) -> None:
    async def story() -> None:
        backend = FakeBackend()
        room = entries * (8 * 4 + ENTRY_OVERHEAD_BYTES)
        engine = engine_on(backend, cache_bytes_max=room, batch_items_max=batch_items_max)
        answers = await asyncio.gather(*(engine.embed("fake", texts) for texts in requests))
        for texts, answer in zip(requests, answers, strict=True):
            np.testing.assert_array_equal(answer.vectors, [backend.vector(text) for text in texts])
            assert answer.prompt_tokens == len(texts)
            assert answer.hits + answer.misses == len(texts)
        await engine.close()

    asyncio.run(story())


@given(st.integers(0, 10_000), st.lists(st.text(min_size=1, max_size=50), min_size=1, max_size=30))
def test_shares_of_tokens_add_up(total: int, texts: list[str]) -> None:
    shares = apportioned(total, texts)
    assert sum(shares) == total
    assert all(share >= 0 for share in shares)


@given(st.tuples(st.text(), st.text(), st.text()), st.tuples(st.text(), st.text(), st.text()))
def test_keys_differ_when_anything_differs(one: tuple[str, str, str], two: tuple[str, str, str]) -> None:
    from unicodedata import normalize

    same = tuple(normalize("NFC", part) for part in one) == tuple(normalize("NFC", part) for part in two)
    assert (cache_key(*one) == cache_key(*two)) == same


# --- the Ollama backend against scripted answers ------------------------------------------------


def ollama(*answers: httpx.Response) -> OllamaBackend:
    script = list(answers)
    transport = httpx.MockTransport(lambda _: script.pop(0))
    return OllamaBackend(PeerClient("ollama", "http://ollama", transport=transport), keep_alive="5m")


@pytest.mark.parametrize(
    ("answer", "kind", "match"),
    [
        (httpx.Response(404, json={"error": "model 'x' not found"}), NotFound, "model 'x' not found"),
        (
            httpx.Response(400, json={"error": "the input length exceeds the context length"}),
            InvalidRequest,
            "context",
        ),
        (httpx.Response(400, json={"error": "EOF"}), UpstreamError, "ollama answered 400: EOF"),
        (httpx.Response(503, json={"error": "server busy"}), UpstreamError, "server busy"),
        (httpx.Response(200, json={"error": "boom"}), UpstreamError, "boom"),
        (httpx.Response(200, text="<html>"), UpstreamError, "not JSON"),
        (httpx.Response(200, json=[]), UpstreamError, "not an object"),
        (httpx.Response(200, json={"embeddings": [[1.0, 0.0]]}), UpstreamError, "shape"),
        (httpx.Response(200, json={"embeddings": [[1.0, 0.0], [1.0]]}), UpstreamError, "different lengths"),
        (httpx.Response(200, json={"embeddings": [[1.0, 0.0], [None, 0.0]]}), UpstreamError, "finite"),
        (httpx.Response(200, json={"embeddings": [[1.0, 0.0], [3.0, 0.0]]}), UpstreamError, "normalised"),
        (httpx.Response(200, json={"embeddings": None}), UpstreamError, "shape"),
    ],
)
async def test_a_wrong_answer_of_ollama_never_becomes_a_vector(
    answer: httpx.Response, kind: type[PlatformError], match: str
) -> None:
    with pytest.raises(kind, match=match):
        await ollama(answer).embed("x", ["a", "b"])


async def test_models_carry_their_digest() -> None:
    answer = httpx.Response(200, json={"models": [{"name": "m:latest", "digest": "abc"}]})
    assert await ollama(answer).models() == [ModelInfo("m:latest", "abc")]
