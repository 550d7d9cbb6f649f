"""Ollama at its worst, over a real socket: an answer is right or refused, whoever its neighbours are."""

import asyncio
from collections import deque
from collections.abc import Sequence

import numpy as np
import pytest

from embedd.backends import Vectors
from services.errors import (
    InvalidRequest,
    NotFound,
    Overloaded,
    PlatformError,
    Unavailable,
    UpstreamError,
    UpstreamTimeout,
)
from tests.stubs import ollama
from tests.stubs.ollama import OllamaStub, Step, stubs
from tests.unit.embedd.engines import Built, engine_on_stubs, vectors
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.enable_socket]

PATIENCE_S = 30.0


def deque_of(step: Step, *, times: int) -> deque[Step]:
    return deque([step] * times)


async def ask(built: Built, *texts: str) -> Vectors:
    async with asyncio.timeout(PATIENCE_S):
        return vectors(await built.embed(*texts, model="stub"))


def are_right(stub: OllamaStub, texts: Sequence[str], answer: Vectors) -> None:
    np.testing.assert_allclose(answer, [stub.vector(text) for text in texts], rtol=1e-6)


@pytest.mark.parametrize(
    ("step", "error", "words"),
    [
        (ollama.fails(404, "model 'stub' not found"), NotFound, "not found"),
        (ollama.fails(400, "this model does not support embeddings"), InvalidRequest, "not support"),
        (ollama.is_short, UpstreamError, "shape"),
        (ollama.is_zero, UpstreamError, "normalised"),
        (ollama.is_no_json, UpstreamError, "something else than a JSON object"),
        (ollama.has_another_dimension, UpstreamError, "16 dimensions; 'stub' has 8"),
        (ollama.fails(200, "boom"), UpstreamError, "boom"),
        (ollama.fails(500, "boom"), UpstreamError, "boom"),
        (ollama.fails(418, "boom"), UpstreamError, "boom"),
    ],
)
async def test_a_wrong_answer_never_becomes_a_vector_and_is_forgotten(
    step: Step, error: type[PlatformError], words: str
) -> None:
    stub = OllamaStub(script=deque([step]))
    async with stubs(stub), engine_on_stubs(stub) as built:
        with pytest.raises(error, match=words):
            await ask(built, "a")
        are_right(stub, ["a"], await ask(built, "a"))
        assert stub.calls == [["a"], ["a"]]


@pytest.mark.parametrize("culprit", ["too long", "crash", "nan"])
async def test_a_bad_text_fails_alone(culprit: str) -> None:
    stub = OllamaStub()
    gate = asyncio.Event()
    stub.script.append(ollama.when(gate))
    async with stubs(stub), engine_on_stubs(stub, batch_items_max=8) as built:
        first = asyncio.ensure_future(ask(built, "holds the backend"))
        await until(lambda: stub.calls)
        good = asyncio.ensure_future(ask(built, "a", "b", "c"))
        bad = asyncio.ensure_future(ask(built, "a", culprit, "d", culprit))
        await until(lambda: built.pool._waiting == 5)
        gate.set()
        are_right(stub, ["a", "b", "c"], await good)
        with pytest.raises(PlatformError, match=r"^`input\.1`, `input\.3`: ") as failure:
            await bad
        assert failure.value.status == (400 if culprit == "too long" else 502)
        await first
        assert stub.calls[1] == ["a", "b", "c", culprit, "d"]
        calls = len(stub.calls)
        are_right(stub, ["d", "a"], await ask(built, "d", "a"))
        assert len(stub.calls) == calls  # they were computed, and are cached


async def test_texts_that_come_while_the_backend_is_busy_leave_together() -> None:
    stub = OllamaStub()
    gate = asyncio.Event()
    stub.script.append(ollama.when(gate))
    async with stubs(stub), engine_on_stubs(stub, batch_items_max=3, batch_tokens_max=6) as built:
        callers = [asyncio.ensure_future(ask(built, "first"))]
        await until(lambda: stub.calls)
        callers += [asyncio.ensure_future(ask(built, text)) for text in ("a", "b", "c", "d", "e" * 20, "f")]
        await until(lambda: built.pool._waiting == 6)
        gate.set()
        await asyncio.gather(*callers)
    assert stub.calls == [["first"], ["a", "b", "c"], ["d"], ["e" * 20], ["f"]]


async def test_a_full_queue_says_so_and_empties() -> None:
    stub = OllamaStub()
    gate = asyncio.Event()
    stub.script.append(ollama.when(gate))
    async with stubs(stub), engine_on_stubs(stub, waiting_max=2) as built:
        first = asyncio.ensure_future(ask(built, "a"))
        await until(lambda: stub.calls)
        second = asyncio.ensure_future(ask(built, "b", "c"))
        await until(lambda: built.pool._waiting == 2)
        with pytest.raises(Overloaded, match="2 texts wait; at most 2 may") as refusal:
            await ask(built, "d")
        assert refusal.value.retry_after_s
        gate.set()
        await asyncio.gather(first, second)
        are_right(stub, ["d"], await ask(built, "d"))


async def test_a_busy_backend_is_left_alone_for_a_while_and_tried_again() -> None:
    stub = OllamaStub(script=deque_of(ollama.fails(503, "server busy, please try again"), times=2))
    async with stubs(stub), engine_on_stubs(stub, busy_pause_s=0.05) as built:
        loop = asyncio.get_running_loop()
        started = loop.time()
        are_right(stub, ["a"], await ask(built, "a"))
        assert loop.time() - started >= 0.09
        assert len(stub.calls) == 3
        stub.script.extend(deque_of(ollama.fails(503, "busy"), times=3))
        with pytest.raises(Overloaded, match="busy"):
            await ask(built, "b")
        assert len(stub.calls) == 6
        assert built.idle


async def test_a_backend_that_is_too_slow_is_a_timeout() -> None:
    stub = OllamaStub(script=deque_of(ollama.when(asyncio.Event()), times=1))
    async with stubs(stub), engine_on_stubs(stub, timeout_s=0.2) as built:
        with pytest.raises(UpstreamTimeout, match=r"did not answer within 0\.2 s"):
            await ask(built, "a")
        await until(lambda: built.pool.lanes.up)
        are_right(stub, ["a"], await ask(built, "a"))


async def test_a_reset_connection_is_tried_again_and_then_said() -> None:
    stub = OllamaStub(script=deque_of(ollama.resets, times=1))
    async with stubs(stub), engine_on_stubs(stub) as built:
        are_right(stub, ["a"], await ask(built, "a"))
        stub.script.extend(deque_of(ollama.resets, times=2))
        with pytest.raises(Unavailable, match="broke"):
            await ask(built, "b")
        await until(lambda: built.pool.lanes.up)
        are_right(stub, ["b"], await ask(built, "b"))


# --- the model changes --------------------------------------------------------------------------


async def test_a_model_pulled_anew_during_a_call_is_never_mixed_up() -> None:
    stub = OllamaStub()
    async with stubs(stub), engine_on_stubs(stub) as built:
        before = await ask(built, "a")
        are_right(stub, ["a"], before)
        stub.script.append(ollama.is_replaced("sha256:b"))
        after = await built.embed("a", "b", model="stub")
        assert after.digest == "sha256:b"
        are_right(stub, ["a", "b"], vectors(after))
        assert not np.allclose(before[0], vectors(after)[0])


async def test_a_model_that_is_replaced_all_the_time_is_refused() -> None:
    stub = OllamaStub()
    stub.script.extend(ollama.is_replaced(f"sha256:{number}") for number in range(3))
    async with stubs(stub), engine_on_stubs(stub) as built:
        with pytest.raises(Overloaded, match="replaced") as refusal:
            await built.embed("a", model="stub")
        assert refusal.value.code == "model_changed"
        are_right(stub, ["a"], await ask(built, "a"))


async def test_a_new_digest_makes_old_vectors_unreachable() -> None:
    stub = OllamaStub()
    async with stubs(stub), engine_on_stubs(stub, digest_ttl_s=0.0) as built:
        await ask(built, "a")
        stub.digest = "sha256:b"
        answer = await built.embed("a", model="stub")
        assert (answer.digest, answer.hits) == ("sha256:b", 0)
        are_right(stub, ["a"], vectors(answer))


async def test_a_model_that_is_gone_is_not_found() -> None:
    stub = OllamaStub()
    async with stubs(stub), engine_on_stubs(stub, digest_ttl_s=0.0) as built:
        await ask(built, "a")
        stub.model = "other:latest"
        with pytest.raises(NotFound, match="model 'stub' not found"):
            await ask(built, "a")


async def test_a_backend_whose_batches_differ_is_not_believed() -> None:
    liar, honest = OllamaStub(batches_differ=True), OllamaStub()
    async with stubs(liar, honest), engine_on_stubs(liar, honest) as built:
        are_right(honest, ["a", "b"], await ask(built, "a", "b"))
        assert liar.calls == []
    async with stubs(liar), engine_on_stubs(liar) as built:
        for _ in range(2):
            with pytest.raises(UpstreamError, match="other vectors in a batch than alone") as refusal:
                await ask(built, "a", "b")
            assert refusal.value.code == "batch_differs"


# --- several backends ---------------------------------------------------------------------------


async def test_work_goes_to_the_backend_with_the_least_under_way() -> None:
    gate = asyncio.Event()
    servers = [OllamaStub(script=deque_of(ollama.when(gate), times=3)) for _ in range(3)]
    async with stubs(*servers), engine_on_stubs(*servers, concurrency_max=2) as built:
        callers = [asyncio.ensure_future(ask(built, str(number))) for number in range(6)]
        await until(lambda: sum(len(server.calls) for server in servers) == 6)
        assert [server.in_flight for server in servers] == [2, 2, 2]
        gate.set()
        await asyncio.gather(*callers)


async def test_a_backend_that_dies_loses_no_text_and_is_used_when_it_is_back() -> None:
    one, two = OllamaStub(), OllamaStub()
    one.script.append(ollama.when(asyncio.Event()))
    async with stubs(one, two), engine_on_stubs(one, two) as built:
        callers = [asyncio.ensure_future(ask(built, f"{number}", f"{number} too")) for number in range(8)]
        await until(lambda: one.calls)
        await one.stop()
        for number, answer in enumerate(await asyncio.gather(*callers)):
            are_right(two, [f"{number}", f"{number} too"], answer)
        assert built.pool.lanes.up == 1
        assert built.figure("backends_up") == 1
        await built.pool.lanes.ping()
        await one.start()
        await until(lambda: built.pool.lanes.up == 2)
        calls = len(one.calls)
        await asyncio.gather(*(ask(built, f"later {number}") for number in range(4)))
        assert len(one.calls) > calls
        assert built.idle


async def test_with_every_backend_down_cached_texts_are_served_and_others_are_503() -> None:
    one, two = OllamaStub(), OllamaStub()
    async with stubs(one, two), engine_on_stubs(one, two, digest_ttl_s=0.05) as built:
        before = await ask(built, "a")
        await one.stop()
        await two.stop()
        with pytest.raises(Unavailable, match="does not answer at") as refusal:
            await ask(built, "a", "b")
        assert refusal.value.code == "ollama_down"
        await until(lambda: not built.pool.lanes.up)
        np.testing.assert_array_equal(await ask(built, "a"), before)
        with pytest.raises(Unavailable):
            await built.pool.lanes.ping()
        await two.start()
        await until(lambda: built.pool.lanes.up == 1)
        are_right(two, ["b"], await ask(built, "b"))


async def test_when_the_backend_with_the_old_model_dies_the_new_one_answers() -> None:
    old, new = OllamaStub(digest="sha256:old"), OllamaStub(digest="sha256:new")
    old.script.append(ollama.when(asyncio.Event()))
    async with stubs(old, new), engine_on_stubs(old, new) as built:
        caller = asyncio.ensure_future(built.embed("a", model="stub"))
        await until(lambda: old.calls)
        await old.stop()
        answer = await caller
        assert answer.digest == "sha256:new"
        are_right(new, ["a"], vectors(answer))


async def test_a_backend_that_hangs_when_asked_for_its_models_delays_nobody_for_long() -> None:
    stub = OllamaStub()
    async with stubs(stub), engine_on_stubs(stub, look_timeout_s=0.1, digest_ttl_s=0.05) as built:
        before = await ask(built, "a")
        stub.tags_hang = True
        await asyncio.sleep(0.06)
        np.testing.assert_array_equal(await ask(built, "a"), before)
        with pytest.raises(Unavailable, match=r"listed no models within 0\.1 s"):
            await ask(built, "b")
        stub.tags_hang = False
        await until(lambda: built.pool.lanes.up)
        are_right(stub, ["b"], await ask(built, "b"))


# --- leaving ------------------------------------------------------------------------------------


async def test_whoever_leaves_takes_nothing_away_and_leaves_nothing_behind() -> None:
    stub = OllamaStub()
    gate = asyncio.Event()
    stub.script.extend(deque_of(ollama.when(gate), times=400))
    async with stubs(stub), engine_on_stubs(stub) as built:
        stays = asyncio.ensure_future(ask(built, "shared", "a"))
        await until(lambda: stub.calls)
        for number in range(300):
            leaves = asyncio.ensure_future(ask(built, "shared", f"only {number}"))
            for _ in range(number % 4):
                await asyncio.sleep(0)
            leaves.cancel()
            await asyncio.gather(leaves, return_exceptions=True)
        await until(lambda: built.pool._waiting == 0)
        assert len(built.engine._flights) == 2
        gate.set()
        are_right(stub, ["shared", "a"], await stays)
        await until(lambda: built.idle)
        assert not [text for call in stub.calls for text in call if text.startswith("only")]
        assert len(built.pool._tasks._tasks) == 0


async def test_a_call_that_nobody_waits_for_is_ended() -> None:
    stub = OllamaStub()
    stub.script.append(ollama.when(asyncio.Event()))
    async with stubs(stub), engine_on_stubs(stub) as built:
        leaves = asyncio.ensure_future(ask(built, "a"))
        await until(lambda: stub.calls)
        leaves.cancel()
        await until(lambda: stub.cut_off == 1 and built.idle)
        are_right(stub, ["a"], await ask(built, "a"))


async def test_a_call_that_is_ended_before_its_first_step_gives_its_place_back() -> None:
    stub = OllamaStub()
    async with stubs(stub), engine_on_stubs(stub, concurrency_max=1) as built:
        await ask(built, "warm")
        for _ in range(3):
            leaves = asyncio.ensure_future(ask(built, "a"))
            while not built.engine._flights:  # noqa: ASYNC110 - the very turn in which it is there
                await asyncio.sleep(0)
            leaves.cancel()
            await asyncio.gather(leaves, return_exceptions=True)
        await until(lambda: built.idle)
        are_right(stub, ["a"], await ask(built, "a"))


async def test_closing_tells_those_who_wait() -> None:
    stub = OllamaStub()
    stub.script.append(ollama.when(asyncio.Event()))
    async with stubs(stub), engine_on_stubs(stub) as built:
        callers = [asyncio.ensure_future(ask(built, str(number))) for number in range(3)]
        await until(lambda: stub.calls and built.pool._waiting == 2)
        await built.engine.close()
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
        assert [str(outcome) for outcome in outcomes] == ["shutting down"] * 3
        assert built.idle
        with pytest.raises(Unavailable, match="shutting down"):
            await ask(built, "later")
