"""One suite over every provider, on the bytes of the real wire formats."""

import asyncio
from contextlib import aclosing
from typing import Any

import orjson
import pytest

from chatd.backends import Bounds, FakeProvider, Provider, Step
from schemas.runs import Usage
from services import context
from services.errors import InvalidRequest, NotFound, UpstreamError
from tests.stubs.chat.asking import answered, ask, gathered
from tests.stubs.chat.formats import FORMATS, SSE, Said, provider, refusal, streamed, whole
from tests.stubs.chat.wire import PATIENCE_S, Reply, WireServer, cut_up, serving

pytestmark = pytest.mark.anyio

TEXT = ["Grüße ", "\u2028 and ", "\x85 bye"]
KINDS = sorted(FORMATS)
HELLO = Said(TEXT)


def good(kind: str, said: Said, *, stream: bool, size: int = 7) -> Reply:
    return streamed(FORMATS[kind], said, size) if stream else whole(FORMATS[kind], said)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[False, True], ids=["json", "stream"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def test_an_answer_is_whole_and_counted(kind: str, stream: bool) -> None:
    async with serving(good(kind, HELLO, stream=stream)) as server:
        done = await answered(provider(kind, server.url), stream=stream)
    assert done.content == "".join(TEXT)
    assert done.finish_reason == "stop"
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (5, 3)
    assert done.raw_usage
    assert server.asked[0].target == FORMATS[kind].target(stream=stream)


@pytest.mark.parametrize("size", [1, 3, 100_000])
async def test_a_stream_may_arrive_in_any_pieces(kind: str, size: int) -> None:
    async with serving(good(kind, HELLO, stream=True, size=size)) as server:
        out, deltas = await gathered(provider(kind, server.url))
    assert out.text == "".join(TEXT)
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == ["stop"]
    assert deltas[-1].finish_reason == "stop"


async def test_tool_calls_have_ids_rising_indexes_and_arguments_as_text(kind: str, stream: bool) -> None:
    said = Said(["so:"], calls=[("f", {"x": "é"}), ("g", {}), ("f", {"x": 2})], finish="tool_calls")
    async with serving(good(kind, said, stream=stream)) as server:
        done = await answered(provider(kind, server.url), stream=stream)
    assert done.content == "so:"
    assert [(call.function.name, orjson.loads(call.function.arguments)) for call in done.tool_calls] == [
        ("f", {"x": "é"}),
        ("g", {}),
        ("f", {"x": 2}),
    ]
    ids = [call.id for call in done.tool_calls]
    assert len(set(ids)) == 3
    assert all(one.startswith("call_") for one in ids)
    assert done.finish_reason == "tool_calls"


async def test_pieces_of_tool_calls_are_numbered_from_zero(kind: str) -> None:
    said = Said(calls=[("f", {"x": 1}), ("g", {"y": 2})], finish="tool_calls")
    async with serving(good(kind, said, stream=True)) as server:
        _, deltas = await gathered(provider(kind, server.url))
    pieces = [piece for delta in deltas for piece in delta.tool_calls]
    assert [piece.index for piece in pieces if piece.id] == [0, 1]
    assert [piece.name for piece in pieces if piece.id] == ["f", "g"]
    assert all(not piece.name for piece in pieces if not piece.id)


async def test_thinking_is_kept_apart(kind: str, stream: bool) -> None:
    said = Said(["42"], thoughts=["hm, ", "well"])
    async with serving(good(kind, said, stream=stream)) as server:
        done = await answered(provider(kind, server.url), stream=stream)
    assert (done.reasoning, done.content) == ("hm, well", "42")


async def test_finish_reasons_are_in_our_words(kind: str, stream: bool) -> None:
    for finish in FORMATS[kind].finishes:
        calls: list[tuple[str, dict[str, Any]]] = [("f", {})] if finish == "tool_calls" else []
        async with serving(good(kind, Said(["a"], calls=calls, finish=finish), stream=stream)) as server:
            done = await answered(provider(kind, server.url), stream=stream)
        assert done.finish_reason == finish


async def test_an_absent_model_is_not_found(kind: str, stream: bool) -> None:
    async with serving(refusal(FORMATS[kind], 404, "model 'm' not found")) as server:
        with pytest.raises(NotFound) as caught:
            await answered(provider(kind, server.url), stream=stream)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


async def test_several_choices_are_refused_by_name_before_a_call(kind: str, stream: bool) -> None:
    async with serving() as server:
        with pytest.raises(InvalidRequest) as caught:
            await answered(provider(kind, server.url), ask(n=2), stream=stream)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "n")
    assert server.asked == []


async def test_declared_gaps_are_refused_by_name(kind: str, stream: bool) -> None:
    async with serving() as server:
        adapter = provider(kind, server.url, extra='lacks = ["stop"]')
        assert adapter.lacking(ask()) == ()
        with pytest.raises(InvalidRequest) as caught:
            await answered(adapter, ask(stop="x"), stream=stream)
    assert caught.value.param == "stop"


async def test_leaving_a_stream_closes_the_connection(kind: str) -> None:
    content = b"".join(FORMATS[kind].events(Said(["a", "b"]))[:4])
    async with serving(Reply([content], headers=SSE, end="hang")) as server:
        async with aclosing(provider(kind, server.url).stream(ask())) as deltas:
            async for delta in deltas:
                if delta.has_content:
                    break
        await server.until(0)


async def test_cancelling_a_call_closes_the_connection(kind: str) -> None:
    async with serving(Reply(end="hang", head=False)) as server:
        call = asyncio.ensure_future(provider(kind, server.url).complete(ask()))
        await server.until(1)
        call.cancel()
        await server.until(0)
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_connections_are_used_again(kind: str, stream: bool) -> None:
    async with serving(*[good(kind, HELLO, stream=False)] * 3) as server:
        adapter = provider(kind, server.url)
        for _ in range(3):
            await adapter.complete(ask())
        assert server.connections == 1
        adapter.retire()
        await server.until(0)
        server.replies.append(good(kind, HELLO, stream=stream))
        await answered(adapter, stream=stream)
        await server.until(0)


async def test_connections_are_kept_when_a_stream_ends_a_little_after_its_answer(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatd.backends.upstream.SETTLE_S", PATIENCE_S)
    content = b"".join(FORMATS[kind].events(HELLO))
    late = Reply([content], headers=SSE, end="chunked", pause_s=0.02)
    async with serving(late, late) as server:
        adapter = provider(kind, server.url)
        for _ in range(2):
            await gathered(adapter)
            async with asyncio.timeout(PATIENCE_S):
                while not adapter._upstream._client._idle:  # type: ignore[attr-defined]  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
        assert server.connections == 1


async def test_an_answer_that_has_ended_holds_no_connection_for_long(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatd.backends.upstream.SETTLE_S", 0.02)
    content = b"".join(FORMATS[kind].events(HELLO))
    async with serving(Reply([content], headers=SSE, end="hang")) as server:
        if kind != "gemini":  # whose streams end with their body alone
            out, _ = await gathered(provider(kind, server.url))
            assert out.finish_reason == "stop"
            await server.until(0)


async def test_keys_are_sent_as_the_provider_wants_and_by_turns(kind: str) -> None:
    async with serving(*[good(kind, HELLO, stream=False)] * 2) as server:
        adapter = provider(kind, server.url, keys=["first", "second"])
        assert adapter.keys == 2
        await adapter.complete(ask(), key=1)
        await adapter.complete(ask())
        await_headers = [asked.headers[FORMATS[kind].key_header] for asked in server.asked]
    assert [value.removeprefix("Bearer ") for value in await_headers] == ["second", "first"]


async def test_a_provider_learns_the_request_and_not_who_asks(kind: str) -> None:
    async with serving(good(kind, HELLO, stream=False)) as server:
        context.enter(context.RequestContext("req-1", "00-a-b-01", principal="alice", roles=("welder",)))
        await provider(kind, server.url).complete(ask())
    headers = server.asked[0].headers
    assert headers["x-request-id"] == "req-1"
    assert "alice" not in str(headers)
    assert "welder" not in str(headers)


async def test_the_configuration_has_no_secrets(kind: str) -> None:
    adapter = provider(kind, "http://user:pw@127.0.0.1:1", keys=["sk-secret"])
    text = orjson.dumps(adapter.config).decode()
    assert f'"provider":"{kind}"' in text
    assert "pw" not in text
    assert "secret" not in text


async def test_models_are_listed(kind: str) -> None:
    listed = {
        "ollama": {"models": [{"name": "m", "modified_at": "2026-01-02T03:04:05Z", "digest": "d"}]},
        "anthropic": {"data": [{"id": "m", "created_at": "2026-01-02T03:04:05Z"}]},
        "gemini": {"models": [{"name": "models/m"}]},
    }.get(kind, {"data": [{"id": "m", "created": 1767323045}]})
    async with serving(Reply([orjson.dumps(listed)])) as server:
        models = await provider(kind, server.url, keys=["k"]).models()
    assert [model.name for model in models] == ["m"]
    assert models[0].created == (0 if kind == "gemini" else 1767323045)
    assert server.asked[0].method == "GET"
    assert server.asked[0].headers[FORMATS[kind].key_header].endswith("k")


async def test_long_lines_and_long_answers_are_refused(kind: str) -> None:
    content = b"".join(FORMATS[kind].events(Said(["x" * 2000])))
    for bounds in (Bounds(line_bytes_max=1000), Bounds(answer_bytes_max=250)):
        async with serving(Reply(cut_up(content, 100), headers=SSE, end="chunked")) as server:
            with pytest.raises(UpstreamError) as caught:
                await gathered(provider(kind, server.url, bounds=bounds))
        assert caught.value.code == "upstream_answer_too_large"


# --- the fake, held to the same -----------------------------------------------------------------


async def test_the_fake_behaves_as_the_others() -> None:
    fake: Provider = FakeProvider("fake", [Step.saying("a b"), Step.saying("c")], models=("m",), keys=2)
    out, deltas = await gathered(fake, key=1)
    assert (out.text, out.finish_reason, out.usage) == (
        "a b",
        "stop",
        Usage(prompt_tokens=7, completion_tokens=2),
    )
    assert deltas[-1].finish_reason == "stop"
    with pytest.raises(InvalidRequest):
        await fake.complete(ask(n=2))
    with pytest.raises(NotFound):
        await fake.complete(ask(model="other"))
    assert (await fake.complete(ask())).content == "c"


async def test_a_server_that_is_asked_twice_at_once_gets_two_connections() -> None:
    async with WireServer() as server:
        server.replies.extend([good("openai", HELLO, stream=True)] * 2)
        adapter = provider("openai", server.url)
        await asyncio.gather(gathered(adapter), gathered(adapter))
        assert server.connections == 2
