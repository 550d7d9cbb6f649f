"""One suite over every provider, the real ones on the bytes of the real wire formats."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
import pytest

from chatd.backends import (
    Delta,
    FakeProvider,
    Gathered,
    OllamaProvider,
    OpenAICompatibleProvider,
    Provider,
    Step,
    ToolCallDelta,
)
from schemas.chat import ChatRequest
from schemas.runs import Usage
from services.errors import InvalidRequest, NotFound, PlatformError, UpstreamError
from services.http import PeerClient

pytestmark = pytest.mark.anyio

TEXT = ["Grüße ", "\u2028 and ", "\x85 bye"]
KINDS = ["fake", "ollama", "openai"]


class Body(httpx.AsyncByteStream):
    """Pieces as they arrive, then the end, or nothing for ever."""

    def __init__(self, pieces: list[bytes], *, hang: bool = False) -> None:
        self._pieces = pieces
        self._hang = hang
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece
        if self._hang:
            await asyncio.Event().wait()

    async def aclose(self) -> None:
        self.closed = True


@dataclass
class Upstream:
    """A provider's server: `answers` are consumed in order."""

    answers: list[httpx.Response] = field(default_factory=list)
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answers.pop(0)

    @property
    def asked(self) -> dict[str, Any]:
        body: dict[str, Any] = orjson.loads(self.requests[-1].content)
        return body


def ask(**extra: Any) -> ChatRequest:
    return ChatRequest.model_validate(
        {"model": "m", "messages": [{"role": "user", "content": "hi"}], **extra}
    )


def ollama(upstream: Upstream, **limits: int) -> OllamaProvider:
    peer = PeerClient("ollama", "http://user:pw@ollama", transport=httpx.MockTransport(upstream))
    return OllamaProvider(
        peer, keep_alive="5m", **{"line_bytes_max": 10_000, "answer_bytes_max": 100_000, **limits}
    )


def openai(upstream: Upstream, **limits: int) -> OpenAICompatibleProvider:
    peer = PeerClient("openai", "http://openai/v1", transport=httpx.MockTransport(upstream))
    return OpenAICompatibleProvider(
        "openai", peer, **{"line_bytes_max": 10_000, "answer_bytes_max": 100_000, **limits}
    )


def ndjson(*objects: dict[str, Any]) -> bytes:
    return b"".join(orjson.dumps(one) + b"\n" for one in objects)


def sse(*objects: dict[str, Any] | str) -> bytes:
    data = [one.encode() if isinstance(one, str) else orjson.dumps(one) for one in objects]
    return b"".join(b"data: " + one + b"\n\n" for one in data)


def in_bytes(content: bytes, size: int = 7) -> list[bytes]:
    """A stream cut where it hurts: inside characters, lines and events."""
    return [content[start : start + size] for start in range(0, len(content), size)]


def saying(kind: str) -> bytes:
    """The stream of TEXT with 5 and 3 tokens, in the provider's own format."""
    if kind == "ollama":
        pieces = [{"message": {"role": "assistant", "content": piece}, "done": False} for piece in TEXT]
        end = {
            "message": {"role": "assistant", "content": ""},
            "done": True,
            "done_reason": "stop",
            "prompt_eval_count": 5,
            "eval_count": 3,
        }
        return ndjson(*pieces, end)
    chunks = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in TEXT]
    return b": ping\n\n" + sse(
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
        *chunks,
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}},
        "[DONE]",
    )


def streaming(kind: str, content: bytes, **options: Any) -> tuple[Provider, Body]:
    body = Body(in_bytes(content), **options)
    upstream = Upstream([httpx.Response(200, stream=body)])
    return (ollama(upstream) if kind == "ollama" else openai(upstream)), body


def good(kind: str) -> Provider:
    if kind == "fake":
        usage = Usage(prompt_tokens=5, completion_tokens=3)
        deltas = [*(Delta(content=piece) for piece in TEXT), Delta(finish_reason="stop", usage=usage)]
        return FakeProvider("fake", [Step(deltas)], models=("m",))
    return streaming(kind, saying(kind))[0]


def whole(kind: str) -> Provider:
    if kind == "fake":
        return good(kind)
    answer: dict[str, Any] = {
        "message": {"role": "assistant", "content": "".join(TEXT)},
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": 5,
        "eval_count": 3,
    }
    if kind == "openai":
        answer = {
            "choices": [{"message": {"content": "".join(TEXT)}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 3},
        }
    upstream = Upstream([httpx.Response(200, json=answer)])
    return ollama(upstream) if kind == "ollama" else openai(upstream)


def absent(kind: str) -> Provider:
    if kind == "fake":
        return FakeProvider("fake", [], models=("other",))
    if kind == "ollama":
        return ollama(Upstream([httpx.Response(404, json={"error": "model 'm' not found"})]))
    error = {"message": "The model `m` does not exist", "type": "invalid_request_error", "code": None}
    return openai(Upstream([httpx.Response(404, json={"error": error})]))


def hanging(kind: str) -> tuple[Provider, Callable[[], bool]]:
    if kind == "fake":
        fake = FakeProvider("fake", [Step([Delta(content="a")], hang=True)], models=("m",))
        return fake, lambda: fake.cancelled == 1
    first = saying(kind)[:-60] if kind == "ollama" else saying(kind).split(b'"finish_reason"')[0]
    provider, body = streaming(kind, first, hang=True)
    return provider, lambda: body.closed


def cut(kind: str) -> Provider:
    if kind == "fake":
        return FakeProvider("fake", [Step([Delta(content="a")])], models=("m",))
    if kind == "ollama":
        return streaming(kind, ndjson({"message": {"role": "assistant", "content": "a"}, "done": False}))[0]
    return streaming(kind, sse({"choices": [{"index": 0, "delta": {"content": "a"}}]}))[0]


async def gathered(provider: Provider, request: ChatRequest | None = None) -> tuple[Gathered, list[Delta]]:
    out, deltas = Gathered(), []
    async with aclosing(provider.stream(request or ask())) as stream:
        async for delta in stream:
            out.add(delta)
            deltas.append(delta)
    return out, deltas


# --- what holds of all ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_says_all_and_ends_once(kind: str) -> None:
    out, deltas = await gathered(good(kind))
    assert out.text == "".join(TEXT)
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == ["stop"]
    assert deltas[-1].finish_reason == "stop"
    assert out.usage == Usage(prompt_tokens=5, completion_tokens=3)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_whole_answer_says_the_same(kind: str) -> None:
    completion = await whole(kind).complete(ask())
    assert completion.content == "".join(TEXT)
    assert (completion.finish_reason, completion.usage.completion_tokens) == ("stop", 3)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_absent_model_is_not_found(kind: str) -> None:
    with pytest.raises(NotFound) as caught:
        await gathered(absent(kind))
    assert caught.value.code == "model_not_found"
    with pytest.raises(NotFound):
        await absent(kind).complete(ask())


@pytest.mark.parametrize("kind", KINDS)
async def test_several_choices_are_refused_by_name(kind: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await gathered(good(kind), ask(n=2))
    assert caught.value.param == "n"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cut_stream_is_a_failure(kind: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        await gathered(cut(kind))
    assert caught.value.code == "truncated"


@pytest.mark.parametrize("kind", KINDS)
async def test_closing_a_stream_closes_the_upstream(kind: str) -> None:
    provider, closed = hanging(kind)
    async with aclosing(provider.stream(ask())) as stream:
        await anext(stream)
    assert closed()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_configuration_has_no_secrets(kind: str) -> None:
    text = orjson.dumps(good(kind).config).decode()
    assert '"provider":"' in text
    assert "pw" not in text


# --- Ollama -----------------------------------------------------------------------------------


async def test_ollama_is_asked_in_its_own_words() -> None:
    upstream = Upstream([httpx.Response(200, content=saying("ollama"))])
    request = ask(
        messages=[
            {"role": "developer", "content": "be brief"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                    {"type": "text", "text": "b"},
                ],
            },
            {
                "role": "assistant",
                "tool_calls": [{"id": "call_1", "function": {"name": "f", "arguments": '{"x":1}'}}],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "42"},
        ],
        max_tokens=5,
        max_completion_tokens=9,
        stop="end",
        seed=3,
        tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    )
    await gathered(ollama(upstream), request)
    assert upstream.asked == {
        "model": "m",
        "stream": True,
        "think": False,
        "truncate": False,
        "keep_alive": "5m",
        "options": {"num_predict": 9, "stop": ["end"], "seed": 3},
        "format": {"type": "object"},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "a\nb", "images": ["AAAA"]},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "call_1", "function": {"name": "f", "arguments": {"x": 1}}}],
            },
            {"role": "tool", "content": "42", "tool_call_id": "call_1", "tool_name": "f"},
        ],
    }


async def test_ollama_tool_calls_are_normalised() -> None:
    call = {"function": {"name": "f", "arguments": {"x": 1}}}
    lines = ndjson(
        {"message": {"role": "assistant", "content": "", "tool_calls": [call]}, "done": False},
        {"message": {"role": "assistant", "tool_calls": [call]}, "done": False},
        {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"},
    )
    out, deltas = await gathered(streaming("ollama", lines)[0])
    pieces = [piece for delta in deltas for piece in delta.tool_calls]
    assert [piece.index for piece in pieces] == [0, 1]
    assert all((piece.id or "").startswith("call_") for piece in pieces)
    assert pieces[0].arguments == '{"x":1}'
    assert out.finish_reason == "tool_calls"
    assert out.usage.prompt_tokens is None


@pytest.mark.parametrize(("reason", "finish"), [("length", "length"), ("load", "stop"), (None, "stop")])
async def test_ollama_finish_reasons_stay_in_the_closed_set(reason: str | None, finish: str) -> None:
    line = ndjson({"message": {"content": "x"}, "done": True, "done_reason": reason})
    out, _ = await gathered(streaming("ollama", line)[0])
    assert out.finish_reason == finish


async def test_an_error_line_ends_the_stream() -> None:
    lines = ndjson({"message": {"content": "x"}, "done": False}, {"error": "runner died"})
    with pytest.raises(UpstreamError, match="runner died"):
        await gathered(streaming("ollama", lines)[0])


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"tool_choice": "required"}, "tool_choice"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}
                ]
            },
            "messages.0.content.0.image_url.url",
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "[]"}}],
                    }
                ]
            },
            "messages.0.tool_calls",
        ),
    ],
)
async def test_ollama_refuses_what_it_cannot_honour(extra: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await ollama(Upstream()).complete(ask(**extra))
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("status", "text", "expected", "param"),
    [
        (400, '"m" does not support tools', 400, "tools"),
        (400, '"m" does not support thinking', 400, "reasoning_effort"),
        (400, '"m" does not support chat', 400, "model"),
        (400, "the prompt exceeds the context length", 400, "messages"),
        (401, "sign in", 502, None),
        (429, "slow down", 429, None),
        (503, "server busy", 503, None),
        (500, "boom", 502, None),
    ],
)
async def test_ollama_failures_have_our_status(
    status: int, text: str, expected: int, param: str | None
) -> None:
    for stream in (True, False):
        provider = ollama(Upstream([httpx.Response(status, json={"error": text})]))
        with pytest.raises(PlatformError) as caught:
            await (gathered(provider) if stream else provider.complete(ask()))
        assert (caught.value.status, caught.value.param) == (expected, param)


async def test_long_lines_and_long_answers_are_refused() -> None:
    line = ndjson({"message": {"content": "x" * 500}, "done": False})
    for limits in ({"line_bytes_max": 400}, {"answer_bytes_max": 400}):
        upstream = Upstream([httpx.Response(200, content=line)])
        with pytest.raises(UpstreamError) as caught:
            await gathered(ollama(upstream, **limits))
        assert caught.value.code == "upstream_answer_too_large"


async def test_models_and_digests_come_from_the_tags() -> None:
    tags = {
        "models": [
            {"name": "a:latest", "modified_at": "2026-01-02T03:04:05.123456789Z", "digest": "d1"},
            {"name": "b:1b", "digest": "d2"},
        ]
    }
    upstream = Upstream([httpx.Response(200, json=tags)])
    provider = ollama(upstream)
    assert await provider.digest("a") == "d1"
    assert await provider.digest("b:1b") == "d2"
    assert await provider.digest("c") is None
    assert len(upstream.requests) == 1
    upstream.answers.append(httpx.Response(200, json=tags))
    assert [model.created for model in await provider.models()] == [1767323045, 0]


# --- OpenAI-compatible ------------------------------------------------------------------------


async def test_openai_is_always_asked_for_usage() -> None:
    upstream = Upstream([httpx.Response(200, content=saying("openai"))])
    await gathered(openai(upstream), ask(temperature=0.5, stream=True))
    assert upstream.asked == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_openai_streams_are_read_liberally() -> None:
    first = {
        "choices": [
            {"delta": {"tool_calls": [{"index": 0, "id": "x", "function": {"name": "f", "arguments": "{"}}]}}
        ]
    }
    more = {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}}]}
    content = (
        b"event: message\r\nid: 1\r\ndata:" + orjson.dumps(first) + b"\r\n\r\n"
        b"data: " + orjson.dumps(more) + b"\r\n\r\ndata: [DONE]"
    )
    out, deltas = await gathered(streaming("openai", content)[0])
    assert deltas[0].tool_calls[0] == ToolCallDelta(0, "{", id=out.tool_calls[0].id, name="f")
    assert out.tool_calls[0].function.arguments == "{}"
    assert out.finish_reason == "tool_calls"


async def test_an_error_with_status_200_is_an_error() -> None:
    answer = {"error": {"message": "no credit", "code": 402}}
    for stream in (True, False):
        content = sse(answer) if stream else orjson.dumps(answer)
        provider = openai(Upstream([httpx.Response(200, content=content)]))
        with pytest.raises(UpstreamError, match="no credit"):
            await (gathered(provider) if stream else provider.complete(ask()))


async def test_null_choices_are_an_error() -> None:
    provider = openai(Upstream([httpx.Response(200, json={"choices": None})]))
    with pytest.raises(UpstreamError):
        await provider.complete(ask())


@pytest.mark.parametrize("kind", ["ollama", "openai"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("said", [{"content": [1]}, {"content": 5}, {"tool_calls": [{"function": 1}]}])
async def test_nonsense_from_upstream_is_the_upstream_s_fault(
    kind: str, stream: bool, said: dict[str, Any]
) -> None:
    answer: dict[str, Any] = {"message": said, "done": True}
    content = orjson.dumps(answer)
    if kind == "openai":
        choice = {"delta" if stream else "message": said}
        content = sse({"choices": [choice]}, "[DONE]") if stream else orjson.dumps({"choices": [choice]})
    upstream = Upstream([httpx.Response(200, content=content)])
    provider = ollama(upstream) if kind == "ollama" else openai(upstream)
    with pytest.raises(UpstreamError) as caught:
        await (gathered(provider) if stream else provider.complete(ask()))
    assert caught.value.code == "upstream_invalid"


async def test_credentials_are_our_own_affair() -> None:
    error = {"error": {"message": "Incorrect API key provided: sk-abcdefghijkl", "code": "invalid_api_key"}}
    provider = openai(Upstream([httpx.Response(401, json=error)]))
    with pytest.raises(UpstreamError) as caught:
        await provider.complete(ask())
    assert caught.value.code == "upstream_credentials"
    assert "sk-" not in caught.value.message


async def test_retry_after_is_handed_on_with_a_cap() -> None:
    for said, kept in (("3", 3.0), ("9999", 60.0), ("soon", 1.0)):
        answer = httpx.Response(429, json={"error": {"message": "x"}}, headers={"retry-after": said})
        with pytest.raises(PlatformError) as caught:
            await openai(Upstream([answer])).complete(ask())
        assert caught.value.retry_after_s == kept
