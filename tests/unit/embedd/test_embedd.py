"""embedd through its door: answers in OpenAI's shape, refusals that name the field, figures that add up."""

import asyncio
import base64
from typing import Any
from unicodedata import normalize

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from embedd.app import create_app
from embedd.backends import FakeBackend, FakeSharedCache, Vectors
from embedd.engine.cache import ENTRY_OVERHEAD_BYTES, Entry, VectorCache, cache_key, key_base
from embedd.settings import Settings
from services.testing import client_for
from tests.unit.embedd.engines import asked, engine_on, vectors

pytestmark = pytest.mark.anyio


async def ask(client: Any, **body: Any) -> Any:
    return await client.post("/v1/embeddings", json={"model": "fake", **body})


async def test_vectors_come_in_order_and_the_second_time_from_the_cache() -> None:
    backend = FakeBackend()
    async with client_for(create_app(Settings(), backends=[backend])) as client:
        first = await ask(client, input=["one", "two", "one"])
        second = await ask(client, input=["two", "three"])
        figures = (await client.get("/metrics")).text
    assert first.headers["x-cache"] == "hits=0 misses=3"
    assert second.headers["x-cache"] == "hits=1 misses=1"
    assert first.headers["x-model-digest"] == "sha256:0"
    for name in ("x-queue-time", "x-inference-time", "x-total-time"):
        assert float(first.headers[name]) >= 0
    assert asked(backend.calls) == [["one", "two"], ["three"]]
    rows = [item["embedding"] for item in first.json()["data"]]
    for row, text in zip(rows, ["one", "two", "one"], strict=True):
        np.testing.assert_allclose(row, backend.vector(text), rtol=1e-6)
    assert [item["index"] for item in first.json()["data"]] == [0, 1, 2]
    assert first.json()["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    for line in (
        "embedd_cache_hits_total 1.0",
        "embedd_cache_misses_total 4.0",
        "embedd_cache_entries 3.0",
        "embedd_upstream_calls_total 2.0",
        "embedd_batch_texts_sum 3.0",
        "embedd_waiting_texts 0.0",
        "embedd_backends_up 1.0",
    ):
        assert f"\n{line}\n" in figures


async def test_base64_and_fewer_dimensions_are_made_of_the_one_vector_that_is_kept() -> None:
    backend = FakeBackend()
    async with client_for(create_app(Settings(), backends=[backend])) as client:
        encoded = await ask(client, input="one", encoding_format="base64")
        fewer = await ask(client, input="one", dimensions=3)
        native = await ask(client, input="one", dimensions=8)
        refused = await ask(client, input="one", dimensions=9)
    data = base64.b64decode(encoded.json()["data"][0]["embedding"])
    np.testing.assert_array_equal(np.frombuffer(data, "<f4"), backend.vector("one"))
    expected = backend.vector("one")[:3]
    vector = fewer.json()["data"][0]["embedding"]
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), rtol=1e-6)
    np.testing.assert_allclose(native.json()["data"][0]["embedding"], backend.vector("one"), rtol=1e-6)
    assert fewer.headers["x-cache"] == "hits=1 misses=0"
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "dimensions")
    assert asked(backend.calls) == [["one"]]


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
        ({"input": ["x" * 190_000] * 5}, 400, "invalid_request", "input"),
        ({"input": "x", "model": "none"}, 404, "model_not_found", "model"),
        ({"input": "x", "model": "openai/none"}, 404, "model_not_found", "model"),
        ({"input": "x", "model": ""}, 400, "invalid_request", "model"),
        ({"input": "x", "dimensions": 0}, 400, "invalid_request", "dimensions"),
        ({"input": "x", "dimensions": "8"}, 400, "invalid_request", "dimensions"),
        ({"input": "x", "dimensions": True}, 400, "invalid_request", "dimensions"),
        ({"input": "x", "encoding_format": "hex"}, 400, "invalid_request", "encoding_format"),
        ({"input": ["x", "poison"]}, 400, "invalid_request", "input.1"),
        ({"input": ["crash", "x"]}, 502, "upstream_failed", "input.0"),
    ],
)
async def test_what_cannot_be_embedded_is_refused_by_name(
    body: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    async with client_for(create_app(Settings(), backends=[FakeBackend()])) as client:
        response = await ask(client, **body)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param)


async def test_the_refusal_of_token_ids_tells_the_way_out() -> None:
    async with client_for(create_app(Settings(), backends=[FakeBackend()])) as client:
        response = await ask(client, input=[1, 2])
    assert "check_embedding_ctx_length=False" in response.json()["error"]["message"]


async def test_unknown_fields_are_ignored_and_the_provider_prefix_is_understood() -> None:
    async with client_for(create_app(Settings(), backends=[FakeBackend()])) as client:
        response = await ask(client, input="x", model="ollama/fake", user="u", mood="good")
    assert response.status_code == 200
    assert response.json()["model"] == "ollama/fake"


async def test_a_task_prefix_and_truncation_are_part_of_what_a_vector_is_of() -> None:
    backend = FakeBackend()
    settings = Settings(prefixes={"fake": {"query": "search_query: "}})
    async with client_for(create_app(settings, backends=[backend])) as client:
        answers = [
            await ask(client, input="one", **options)
            for options in ({}, {"input_type": "document"}, {"input_type": "query"}, {"truncate": True})
        ]
    assert [answer.headers["x-cache"] for answer in answers] == [
        "hits=0 misses=1",
        "hits=1 misses=0",
        "hits=0 misses=1",
        "hits=0 misses=1",
    ]
    assert asked(backend.calls) == [["one"], ["search_query: one"], ["one"]]


async def test_two_spellings_of_a_text_are_one_text() -> None:
    backend = FakeBackend()
    async with engine_on(backend) as built:
        before = await built.embed("cafe\u0301")
        after = await built.embed("caf\u00e9")
    assert after.hits == 1
    np.testing.assert_array_equal(vectors(before), [backend.vector("caf\u00e9")])


async def test_readiness_names_backends_that_do_not_answer() -> None:
    settings = Settings(ollama_urls=("http://127.0.0.1:1", "http://127.0.0.1:2"))
    async with client_for(create_app(settings)) as client:
        answer = await client.get("/readyz")
        refused = await ask(client, input="x", model="any")
    dependencies = answer.json()["dependencies"]
    assert answer.status_code == 503
    assert list(dependencies) == ["backends", "ollama http://127.0.0.1:1", "ollama http://127.0.0.1:2"]
    assert "127.0.0.1:1" in dependencies["backends"]["reason"]
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ollama_down")


async def test_vectors_that_another_replica_computed_are_not_computed_again() -> None:
    shared = FakeSharedCache()
    one, two = FakeBackend(), FakeBackend()
    async with engine_on(one, shared=shared) as first, engine_on(two, shared=shared) as second:
        await first.embed("a", "b")
        answer = await second.embed("b", "c")
        assert (answer.hits, answer.misses) == (1, 1)
        assert asked(two.calls) == [["c"]]
        np.testing.assert_array_equal(vectors(answer), [one.vector("b"), one.vector("c")])
        for key in list(shared.values):
            shared.values[key] = shared.values[key][:-1] + b"x"
        await first.engine.close()
    async with engine_on(FakeBackend(), shared=shared) as third:
        assert (await third.embed("a")).misses == 1  # damaged, so computed


async def test_what_was_computed_while_the_shared_cache_was_asked_is_not_computed_again() -> None:
    class Slow(FakeSharedCache):
        def __init__(self) -> None:
            super().__init__()
            self.gate = asyncio.Event()

        async def get(self, keys: Any) -> list[bytes | None]:
            found: list[bytes | None] = [None] * len(keys)
            gate, self.gate = self.gate, asyncio.Event()
            await gate.wait()
            return found

    shared, backend = Slow(), FakeBackend()
    async with engine_on(backend, shared=shared) as built:
        gates = [shared.gate]
        first = asyncio.ensure_future(built.embed("a"))
        await asyncio.sleep(0.01)
        gates.append(shared.gate)
        second = asyncio.ensure_future(built.embed("a"))
        await asyncio.sleep(0.01)
        gates[0].set()
        await first
        gates[1].set()
        await second
    assert asked(backend.calls) == [["a"]]


# --- the cache ----------------------------------------------------------------------------------


async def test_the_cache_stays_within_its_bytes_and_counts_what_leaves() -> None:
    room = 3 * (8 * 4 + 8 + ENTRY_OVERHEAD_BYTES)
    async with engine_on(FakeBackend(), cache_bytes_max=room) as built:
        await built.embed("a", "b", "c")
        await built.embed("a")  # the hottest now
        await built.embed("d")
        again = await built.embed("a", "c", "d", "b")
        assert (again.hits, again.misses) == (3, 1)
        assert built.figure("cache_evictions_total") == 2
        assert built.figure("cache_bytes") == built.cache.bytes == room


async def test_entries_grow_too_old() -> None:
    now = [0.0]
    async with engine_on(FakeBackend(), ttl_s=10.0, clock=lambda: now[0]) as built:
        await built.embed("a")
        now[0] = 9.0
        assert (await built.embed("a")).hits == 1
        now[0] = 11.0
        assert (await built.embed("a")).hits == 0
        assert (await built.embed("a")).hits == 1


async def test_a_vector_that_is_computed_anew_is_also_written_anew() -> None:
    class Moody(FakeBackend):
        """A provider that changes a model under its name."""

        pinned = True
        mood = "good"

        def vector(self, text: str) -> Vectors:
            return super().vector(f"{text} {self.mood}")

    backend = Moody()
    now = [0.0]
    async with engine_on(backend, ttl_s=10.0, clock=lambda: now[0]) as built:
        rows = []
        for _ in range(2):
            embedded = await built.embed("a")
            rows += built.engine.fragments(embedded, range(1), "base64", None)
            backend.mood = "bad"
            now[0] += 11.0
    assert rows[0] != rows[1]


def test_the_least_frequently_used_leave_first_when_asked_for() -> None:
    cache = VectorCache(bytes_max=2 * (4 + 8 + ENTRY_OVERHEAD_BYTES), policy="lfu", ttl_s=0)
    entry = Entry(b"\0" * 4, 1)
    cache.put(b"often", entry)
    for _ in range(3):
        cache.get(b"often")
    cache.put(b"once", entry)
    cache.put(b"new", entry)
    assert [cache.get(key) is not None for key in (b"often", b"once", b"new")] == [True, False, True]


def test_an_entry_that_is_larger_than_the_cache_is_not_kept() -> None:
    cache = VectorCache(bytes_max=0, policy="lru", ttl_s=0)
    cache.put(b"a", Entry(b"\0" * 4, 1))
    assert cache.get(b"a") is None
    assert cache.bytes == 0


PARTS = st.tuples(st.text(), st.text(), st.binary(), st.text(), st.text())


@given(PARTS, PARTS)
def test_keys_differ_when_anything_differs(one: Any, two: Any) -> None:
    same = (*one[:4], normalize("NFC", one[4])) == (*two[:4], normalize("NFC", two[4]))
    keys = [cache_key(key_base(*parts[:3]), parts[3], parts[4]) for parts in (one, two)]
    assert (keys[0] == keys[1]) == same


@given(st.binary(max_size=64), st.integers(0, 2**32 - 1))
def test_a_packed_entry_is_the_entry_or_nothing(vector: bytes, tokens: int) -> None:
    entry = Entry(vector * 4 or b"\0" * 4, tokens)
    packed = entry.packed()
    assert Entry.unpacked(packed) == entry
    assert Entry.unpacked(packed[:-1]) is None
    assert Entry.unpacked(bytes([packed[0] ^ 1]) + packed[1:]) is None
    assert Entry.unpacked(vector[:8]) is None


@pytest.mark.parametrize("wrong", [{"l2_url": "http://127.0.0.1"}, {"waiting_max": 10}])
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)
