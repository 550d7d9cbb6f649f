"""Oddities of single providers, read from their own bytes."""

from typing import Any

import orjson
import pytest

from schemas.runs import Usage
from services.errors import InvalidRequest, PlatformError, UpstreamError
from tests.stubs.chat.asking import answered, ask, gathered
from tests.stubs.chat.formats import FORMATS, SSE, Said, provider, sse
from tests.stubs.chat.wire import Reply, serving

pytestmark = pytest.mark.anyio


async def completed(kind: str, answer: Any, **params: Any) -> Any:
    async with serving(Reply([orjson.dumps(answer)])) as server:
        return await provider(kind, server.url).complete(ask(**params))


async def read(kind: str, content: bytes, **params: Any) -> Any:
    async with serving(Reply([content], headers=SSE, end="chunked")) as server:
        return (await gathered(provider(kind, server.url), ask(**params)))[0]


async def failing(kind: str, reply: Reply) -> PlatformError:
    async with serving(reply) as server:
        with pytest.raises(PlatformError) as caught:
            await provider(kind, server.url).complete(ask())
    return caught.value


# --- Ollama -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reason", "finish"), [("length", "length"), ("load", "stop"), (None, "stop")])
async def test_ollama_s_finish_reasons_stay_in_the_closed_set(reason: str | None, finish: str) -> None:
    line = orjson.dumps({"message": {"content": "x"}, "done": True, "done_reason": reason})
    assert (await read("ollama", line)).finish_reason == finish


async def test_zeros_that_ollama_leaves_out() -> None:
    done = await completed("ollama", {"message": {"content": "x"}, "done": True, "eval_count": 2})
    assert done.usage == Usage(prompt_tokens=0, completion_tokens=2)
    done = await completed("ollama", {"message": {"content": "x"}, "done": True})
    assert done.usage == Usage()


@pytest.mark.parametrize(
    ("text", "param"),
    [
        ('"m" does not support tools', "tools"),
        ('"m" does not support thinking', "reasoning_effort"),
        ('"m" does not support chat', "model"),
    ],
)
async def test_what_a_model_of_ollama_s_cannot_do(text: str, param: str) -> None:
    error = await failing("ollama", Reply([orjson.dumps({"error": text})], 400))
    assert (error.status, error.param) == (400, param)


async def test_digests_come_from_the_tags() -> None:
    tags = {"models": [{"name": "a:latest", "digest": "d1"}, {"name": "b:1b", "digest": "d2"}]}
    async with serving(Reply([orjson.dumps(tags)])) as server:
        adapter = provider("ollama", server.url)
        assert [await adapter.digest(name) for name in ("a", "b:1b", "c")] == ["d1", "d2", None]
        assert len(server.asked) == 1


async def test_log_probabilities_of_ollama() -> None:
    token = {"token": "x", "logprob": -0.5, "bytes": [120], "top_logprobs": []}
    done = await completed(
        "ollama", {"message": {"content": "x"}, "done": True, "logprobs": [token]}, logprobs=True
    )
    assert done.logprobs == {"content": [token]}


# --- OpenAI and those who speak like it -----------------------------------------------------------


async def test_streams_are_read_liberally() -> None:
    piece = {"id": "x", "function": {"name": "f", "arguments": "{"}}
    first = orjson.dumps({"choices": [{"delta": {"tool_calls": [piece]}}]})
    more = orjson.dumps({"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "}"}}]}}]})
    content = b"event: message\r\nid: 1\r\nretry: 5\r\ndata:%b\r\n\r\n: ping\n\ndata: %b\n\ndata: [DONE]" % (
        first,
        more,
    )
    out = await read("openai", content)
    assert [call.function.arguments for call in out.tool_calls] == ["{}"]
    assert out.finish_reason == "tool_calls"


async def test_arguments_that_come_as_an_object() -> None:
    call = {"function": {"name": "f", "arguments": {"x": 1}}}
    done = await completed(
        "openai", {"choices": [{"message": {"tool_calls": [call]}, "finish_reason": None}]}
    )
    assert done.tool_calls[0].function.arguments == '{"x":1}'
    assert done.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    "said", [{"content": [1]}, {"content": 5}, {"tool_calls": [{"function": 1}]}, {"tool_calls": [5]}]
)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["ollama", "openai", "openrouter"])
async def test_nonsense_is_the_provider_s_fault(kind: str, stream: bool, said: dict[str, Any]) -> None:
    answer: Any = {"message": said, "done": True}
    if kind != "ollama":
        answer = {"choices": [{"delta" if stream else "message": said}]}
    content = sse(answer) if stream and kind != "ollama" else orjson.dumps(answer)
    async with serving(Reply([content], headers=SSE)) as server:
        with pytest.raises(UpstreamError) as caught:
            await answered(provider(kind, server.url), stream=stream)
    assert caught.value.code == "upstream_invalid"


async def test_null_choices_are_an_error() -> None:
    error = await failing("openai", Reply([b'{"choices": null}']))
    assert error.code == "upstream_invalid"


async def test_refusals_and_log_probabilities_are_handed_on() -> None:
    token = {"token": "x", "logprob": -0.5, "bytes": None, "top_logprobs": []}
    chunk = {
        "choices": [
            {"delta": {"content": "x", "refusal": "no"}, "logprobs": {"content": [token], "refusal": None}}
        ]
    }
    out = await read("openai", sse(chunk) + sse(chunk) + sse(b"[DONE]"))
    assert out.completion().refusal == "nono"
    assert out.completion().logprobs == {"content": [token, token]}


@pytest.mark.parametrize("code", ["content_filter", "content_policy_violation"])
async def test_a_policy_s_refusal_has_its_own_code(code: str) -> None:
    body = {"error": {"message": "flagged", "type": "invalid_request_error", "code": code}}
    error = await failing("openai", Reply([orjson.dumps(body)], 400))
    assert (error.status, error.code) == (400, "content_policy_violation")


@pytest.mark.parametrize(
    ("code", "status"), [(402, 502), (429, 429), (502, 502), (400, 400), (503, 503), ("x", 502)]
)
async def test_openrouter_s_errors_inside_good_answers_have_their_status(code: object, status: int) -> None:
    error = await failing("openrouter", Reply([orjson.dumps({"error": {"code": code, "message": "no"}})]))
    assert error.status == status


async def test_openrouter_s_moderation_is_no_fault_of_a_key() -> None:
    body = {"error": {"code": 403, "message": "flagged", "metadata": {"reasons": ["violence"]}}}
    error = await failing("openrouter", Reply([orjson.dumps(body)], 403))
    assert (error.status, error.code) == (400, "content_policy_violation")


async def test_openrouter_tells_the_cost() -> None:
    done = await completed("openrouter", FORMATS["openrouter"].whole(Said(["a"])))
    assert done.usage.cost_usd == 0.00014


# --- Anthropic ------------------------------------------------------------------------------------


async def test_anthropic_s_usage_is_merged_once_and_counts_as_openai_s() -> None:
    start = {
        "input_tokens": 10,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 5,
        "output_tokens": 1,
    }
    delta = {"output_tokens": 7, "input_tokens": None, "output_tokens_details": {"thinking_tokens": 2}}
    content = b"".join(
        sse(event)
        for event in (
            {"type": "message_start", "message": {"usage": start}},
            {"type": "something_new", "x": 1},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "redacted_thinking"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": "a"}},
            {"type": "content_block_stop", "index": 1},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": delta},
            {"type": "message_stop"},
        )
    )
    out = await read("anthropic", content)
    assert out.text == "a"
    assert out.usage == Usage(prompt_tokens=115, completion_tokens=7)
    assert out.raw_usage == {**start, "output_tokens": 7, "output_tokens_details": {"thinking_tokens": 2}}


@pytest.mark.parametrize(
    ("kind", "status"), [("overloaded_error", 503), ("rate_limit_error", 429), ("api_error", 502)]
)
async def test_anthropic_s_errors_in_a_stream_have_their_status(kind: str, status: int) -> None:
    event = {"type": "error", "error": {"type": kind, "message": "no"}}
    async with serving(Reply([sse(event)], headers=SSE)) as server:
        with pytest.raises(PlatformError) as caught:
            await gathered(provider("anthropic", server.url))
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("reason", "param"),
    [
        ("thinking.type: adaptive is not supported", "reasoning_effort"),
        ("output_config.effort: not supported", "reasoning_effort"),
        ("output_config.format.schema: too deep", "response_format"),
        ("max_tokens: 99999999 > 64000", "max_tokens"),
        ("messages.0.content.1.image.source: bad image", "messages"),
        ("tools.0.name: String should match", "tools"),
    ],
)
async def test_anthropic_s_refusals_name_the_caller_s_field(reason: str, param: str) -> None:
    body = {"type": "error", "error": {"type": "invalid_request_error", "message": reason}}
    error = await failing("anthropic", Reply([orjson.dumps(body)], 400))
    assert error.param == param


# --- Gemini ---------------------------------------------------------------------------------------


async def test_gemini_says_when_a_prompt_was_blocked() -> None:
    answer = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}}
    async with serving(Reply([orjson.dumps(answer)])) as server:
        with pytest.raises(InvalidRequest) as caught:
            await provider("gemini", server.url).complete(ask())
    assert caught.value.code == "content_policy_violation"


@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "OTHER", "SOMETHING_NEW"])
async def test_gemini_s_failures_are_no_answers(reason: str) -> None:
    answer = {"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": reason}]}
    error = await failing("gemini", Reply([orjson.dumps(answer)]))
    assert error.status == 502
    assert reason in error.message


async def test_gemini_s_wait_is_in_the_details() -> None:
    detail = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "13.5s"}
    body = {"error": {"code": 429, "message": "quota", "details": [detail]}}
    error = await failing("gemini", Reply([orjson.dumps(body)], 429))
    assert error.retry_after_s == 13.5


async def test_gemini_s_bad_key_is_a_matter_of_credentials() -> None:
    body = {"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}
    error = await failing("gemini", Reply([orjson.dumps(body)], 400))
    assert error.code == "upstream_credentials"


async def test_gemini_s_thinking_counts_as_output() -> None:
    answer = FORMATS["gemini"].whole(Said(["a"]))
    answer["usageMetadata"] = {"promptTokenCount": 4, "candidatesTokenCount": 2, "thoughtsTokenCount": 5}
    done = await completed("gemini", answer)
    assert done.usage == Usage(prompt_tokens=4, completion_tokens=7)
