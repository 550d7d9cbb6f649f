"""The two other APIs over the same core: what they ask, and what they are told."""

from collections.abc import Callable
from typing import Any

import anthropic
import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response

from chatd.backends import Completion, Delta, Gathered, Step, ToolCallDelta
from chatd.engine.surfaces import ChatSurface, Heading, MessagesSurface, ResponsesSurface, Surface
from chatd.engine.surfaces import messages as messages_surface
from chatd.engine.surfaces import responses as responses_surface
from schemas.chat import ChatCompletion, FinishReason, FunctionCall, ToolCall
from schemas.messages import MessagesRequest
from schemas.responses import ResponsesRequest
from schemas.runs import Usage
from services.errors import UpstreamError
from tests.unit.chatd.conftest import World

anyio = pytest.mark.anyio

HEADING = Heading("run-1", 1_767_225_600, "fast")
USAGE = Usage(prompt_tokens=7, completion_tokens=3)
HELLO = [{"role": "user", "content": "fill order O-1"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/responses": {"input": "fill order O-1"},
    "/v1/messages": {"messages": HELLO, "max_tokens": 64},
}
POLICY = {"x-stillhouse-validate": '{"kind":"fill"}'}


def wrong(_: Any) -> list[dict[str, Any]]:
    return [{"code": "fill.count_short", "severity": "error", "path": "/a", "message": "no"}]


@anyio
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", BODIES)
async def test_a_key_s_policy_holds_on_every_surface(world: World, path: str, *, stream: bool) -> None:
    world.validators.judge = wrong
    world.script(Step.saying('{"a":"SECRET"}'), Step.saying('{"a":"SECRET"}'))
    body = {"model": "fake", "stream": stream, **BODIES[path]}
    async with world.client() as client:
        held = await client.post(path, json=body, headers=POLICY)
        world.validators.judge = lambda _: []
        passed = await client.post(path, json=body, headers=POLICY)
    assert held.status_code == 200
    assert held.headers["x-verdict"] == "rejected"
    assert "SECRET" not in held.text
    assert "fill.count_short" in held.text
    assert passed.headers["x-verdict"] == "accepted"
    assert "SECRET" in passed.text


@anyio
@pytest.mark.parametrize("headers", [{}, POLICY])
@pytest.mark.parametrize("path", BODIES)
async def test_a_stream_tells_the_gateway_its_tokens(
    world: World, path: str, headers: dict[str, str]
) -> None:
    world.validators.judge = lambda _: []
    world.script(Step.saying('{"a": 1}'), Step.saying('{"a": 1}'))
    body = {"model": "fake", "stream": True, **BODIES[path]}
    async with world.client() as client:
        plain = await client.post(path, json=body, headers=headers)
        metered = await client.post(path, json=body, headers={**headers, "x-stillhouse-metered": "1"})
    said = [line for line in metered.text.splitlines() if line.startswith(":")]
    assert said == [': "total_tokens":9']
    assert metered.text.index(said[0]) < metered.text.rindex("data:")
    assert not [line for line in plain.text.splitlines() if line.startswith(":")]


@anyio
@pytest.mark.parametrize("change", [{}, {"max_tokens": 0}, {"model": "no/where"}])
async def test_anthropic_s_clients_find_the_id_of_every_answer(world: World, change: dict[str, Any]) -> None:
    world.script(Step.saying("hi"))
    async with world.client() as client:
        answer = await client.post("/v1/messages", json={"model": "fake", **BODIES["/v1/messages"], **change})
    assert answer.headers.get_list("request-id") == [answer.headers["x-request-id"]]


@anyio
@pytest.mark.parametrize("path", BODIES)
async def test_null_is_as_good_as_nothing_said(world: World, path: str) -> None:
    world.script(Step.saying("hi"))
    body = {"model": "fake", "stream": None, "temperature": None, "tools": None, **BODIES[path]}
    async with world.client() as client:
        answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"


@anyio
@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        *((path, "stream", value) for path in BODIES for value in ("yes", 1, "true")),
        ("/v1/chat/completions", "max_tokens", "5"),
        ("/v1/chat/completions", "temperature", "0.5"),
        ("/v1/chat/completions", "stream_options", {"include_usage": "yes"}),
        ("/v1/responses", "max_output_tokens", 5.5),
        ("/v1/messages", "max_tokens", True),
    ],
)
async def test_a_value_of_another_type_is_refused(world: World, path: str, field: str, value: Any) -> None:
    provider = world.script(Step.saying("hi"))
    async with world.client() as client:
        answer = await client.post(path, json={"model": "fake", **BODIES[path], field: value})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"].startswith(field)
    assert provider.requests == []


@anyio
@pytest.mark.parametrize("path", BODIES)
async def test_without_a_verdict_nothing_leaves_on_any_surface(world: World, path: str) -> None:
    world.validators.down = True
    world.script(Step.saying('{"a":"SECRET"}'))
    async with world.client() as client:
        answer = await client.post(path, json={"model": "fake", **BODIES[path]}, headers=POLICY)
    assert answer.status_code == 503
    assert "SECRET" not in answer.text


@anyio
@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        ("/v1/messages", "messages.0.content", [{"role": "user", "content": [{"type": "document"}]}]),
        (
            "/v1/messages",
            "messages.0.content",
            [{"role": "assistant", "content": [{"type": "tool_result", "tool_use_id": "x"}]}],
        ),
        ("/v1/messages", "tool_choice.name", {"type": "tool"}),
        ("/v1/responses", "store", True),
        ("/v1/responses", "input", [{"type": "reasoning"}]),
    ],
)
async def test_what_cannot_be_said_is_refused_by_name(
    world: World, path: str, field: str, value: Any
) -> None:
    provider = world.script(Step.saying("hi"))
    async with world.client() as client:
        body = {"model": "fake", **BODIES[path], field.partition(".")[0]: value}
        answer = await client.post(path, json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"].startswith(field)
    assert provider.requests == []


def test_a_conversation_of_anthropic_s() -> None:
    asked = messages_surface.asked(
        MessagesRequest.model_validate(
            {
                "model": "m",
                "max_tokens": 5,
                "system": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}],
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "see"}, IMAGE]},
                    {
                        "role": "assistant",
                        "content": [
                            {"type": "thinking", "thinking": "hm", "signature": "s"},
                            {"type": "text", "text": "so"},
                            {"type": "tool_use", "id": "call_1", "name": "add", "input": {"a": 1}},
                        ],
                    },
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "tool_result",
                                "tool_use_id": "call_1",
                                "content": "no",
                                "is_error": True,
                            },
                            {"type": "text", "text": "go on"},
                        ],
                    },
                ],
                "stop_sequences": ["END"],
                "tools": [{"name": "add", "input_schema": {"type": "object"}}],
                "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
                "thinking": {"type": "enabled", "budget_tokens": 1024},
            }
        )
    )
    said = asked.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    assert [one["role"] for one in said["messages"]] == ["system", "user", "assistant", "tool", "user"]
    assert said["messages"][0]["content"] == "one\n\ntwo"
    assert said["messages"][1]["content"][1]["image_url"]["url"] == "data:image/png;base64,aGk="
    assert said["messages"][2]["content"] == "so"
    assert said["messages"][2]["tool_calls"][0]["function"]["arguments"] == '{"a":1}'
    assert said["messages"][3] == {"role": "tool", "content": "The tool failed: no", "tool_call_id": "call_1"}
    assert (said["max_completion_tokens"], said["stop"], said["tool_choice"]) == (5, ["END"], "required")
    assert (said["parallel_tool_calls"], said["reasoning_effort"]) == (False, "low")


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}


def test_the_items_of_one_turn_become_one_message() -> None:
    call = {"type": "function_call", "name": "add", "arguments": "{}"}
    asked = responses_surface.asked(
        ResponsesRequest.model_validate(
            {
                "model": "m",
                "input": [
                    {"role": "developer", "content": "be short"},
                    {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
                    {
                        "type": "message",
                        "role": "assistant",
                        "content": [{"type": "output_text", "text": "so"}],
                    },
                    {**call, "call_id": "call_1"},
                    {**call, "call_id": "call_2"},
                    {"type": "function_call_output", "call_id": "call_1", "output": "1"},
                    {"type": "function_call_output", "call_id": "call_2", "output": "2"},
                ],
                "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
                "top_logprobs": 2,
            }
        )
    )
    said = asked.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
    assert [one["role"] for one in said["messages"]] == ["developer", "user", "assistant", "tool", "tool"]
    assert [one["id"] for one in said["messages"][2]["tool_calls"]] == ["call_1", "call_2"]
    assert said["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert (said["logprobs"], said["top_logprobs"]) == (True, 2)


# --- a stream says what the whole says ----------------------------------------------------------

RESPONSES = ResponsesSurface(ResponsesRequest(model="fast", input="hi"))
TEXTS = st.text(max_size=5)


SAYING: dict[str, Callable[[str], Delta]] = {
    "content": lambda text: Delta(content=text),
    "reasoning": lambda text: Delta(reasoning=text),
    "refusal": lambda text: Delta(refusal=text),
}


@st.composite
def streams(draw: st.DrawFn) -> list[Delta]:
    """Deltas in any order, the pieces of parallel tool calls mixed."""
    deltas: list[Delta] = []
    arguments = {index: ["{", f'"a":{index}', "}"] for index in range(draw(st.integers(0, 3)))}
    begun: list[int] = []
    kinds = draw(st.lists(st.sampled_from(["content", "reasoning", "refusal"]), max_size=5))
    deltas += [SAYING[kind](draw(st.text(min_size=1, max_size=5))) for kind in kinds]
    while any(arguments.values()):
        index = draw(st.sampled_from([key for key, left in arguments.items() if left]))
        first = index not in begun
        begun += [index] if first else []
        piece = ToolCallDelta(
            index,
            arguments[index].pop(0),
            id=f"call_{index}" if first else None,
            name="add" if first else None,
        )
        deltas.append(Delta(tool_calls=(piece,)))
    reasons: list[FinishReason] = ["tool_calls"] if begun else ["stop", "length", "content_filter"]
    return [*deltas, Delta(finish_reason=draw(st.sampled_from(reasons)), usage=USAGE)]


def written(surface: Surface, deltas: list[Delta]) -> list[dict[str, Any]]:
    """The events of a stream, read as a client reads them."""
    writer = surface.writer(HEADING)
    sent = writer.begin() + b"".join(map(writer.delta, deltas[:-1])) + writer.end(deltas[-1])
    blocks = [block for block in sent.split(b"\n\n") if block]
    data = [block.rpartition(b"data: ")[2] for block in blocks]
    return [orjson.loads(one) for one in data if one != b"[DONE]"]


def gathered(deltas: list[Delta]) -> Completion:
    whole = Gathered()
    for delta in deltas:
        whole.add(delta)
    return whole.completion()


@settings(max_examples=60, deadline=None)
@given(streams())
def test_anthropic_s_blocks_never_lie_within_one_another(deltas: list[Delta]) -> None:
    events = written(MessagesSurface(), deltas)
    assert [events[0]["type"], events[-2]["type"], events[-1]["type"]] == [
        "message_start",
        "message_delta",
        "message_stop",
    ]
    blocks: list[dict[str, Any]] = []
    inside = False
    for event in events[1:-2]:
        kind = event["type"]
        assert event["index"] == len(blocks) - (0 if kind == "content_block_start" else 1)
        assert inside is (kind != "content_block_start")
        if kind == "content_block_start":
            blocks.append({**event["content_block"], "json": ""})
        elif kind == "content_block_delta":
            delta = event["delta"]
            key = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "json"}[
                delta["type"]
            ]
            blocks[-1][key] += delta.get(key if key != "json" else "partial_json")
        inside = kind != "content_block_stop"
    whole = gathered(deltas)
    said = "".join(block["text"] for block in blocks if block["type"] == "text")
    assert sorted(said) == sorted((whole.content or "") + (whole.refusal or ""))
    calls = sorted((block["id"], block["json"]) for block in blocks if block["type"] == "tool_use")
    assert calls == sorted((call.id, call.function.arguments) for call in whole.tool_calls)
    assert events[-2]["usage"] == {"input_tokens": 7, "output_tokens": 3}


@settings(max_examples=60, deadline=None)
@given(streams())
def test_the_events_of_a_response_add_up_to_it(deltas: list[Delta]) -> None:
    events = written(RESPONSES, deltas)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    final = events[-1]["response"]
    assert events[-1]["type"] in ("response.completed", "response.incomplete")
    done = {e["output_index"]: e["item"] for e in events if e["type"] == "response.output_item.done"}
    assert final["output"] == [done[index] for index in range(len(done))]
    assert len(done) == sum(e["type"] == "response.output_item.added" for e in events)
    whole = gathered(deltas)
    parts = [part for item in final["output"] if item["type"] == "message" for part in item["content"]]
    texts = "".join(part["text"] for part in parts if part["type"] == "output_text")
    assert texts == (whole.content or "")
    calls = sorted((i["call_id"], i["arguments"]) for i in final["output"] if i["type"] == "function_call")
    assert calls == sorted((call.id, call.function.arguments) for call in whole.tool_calls)
    assert Response.model_validate(final).usage is not None


@settings(max_examples=60, deadline=None)
@given(streams())
def test_chunks_have_the_role_once_and_the_finish_once(deltas: list[Delta]) -> None:
    chunks = written(ChatSurface(with_usage=True), deltas)
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 10
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert [index for index, choice in enumerate(choices) if "role" in choice["delta"]] == [0]
    finishes = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    assert finishes == [deltas[-1].finish_reason]
    assert "".join(c["delta"].get("content") or "" for c in choices) == (gathered(deltas).content or "")


def test_whole_answers_are_what_the_clients_types_say() -> None:
    call = ToolCall(id="call_1", function=FunctionCall(name="add", arguments='{"a":1}'))
    raw: Any = {"prompt_tokens_details": {"cached_tokens": 4}}
    answer = Completion("so", "tool_calls", USAGE, (call,), reasoning="hm", raw_usage=raw)
    chat = ChatCompletion.model_validate_json(ChatSurface().whole(HEADING, answer))
    assert chat.choices[0].message.reasoning == "hm"
    response = Response.model_validate_json(RESPONSES.whole(HEADING, answer))
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]
    message = anthropic.types.Message.model_validate_json(MessagesSurface().whole(HEADING, answer))
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (3, 4)


@pytest.mark.parametrize(("finish", "told"), [("tool_calls", False), ("length", True)])
def test_arguments_that_are_no_json(finish: Any, *, told: bool) -> None:
    """Anthropic has no words for them. Cut ones are left out, as `max_tokens` says why."""
    call = ToolCall(id="call_1", function=FunctionCall(name="add", arguments='{"a":'))
    answer = Completion("so", finish, USAGE, (call,))
    if told:
        message = orjson.loads(MessagesSurface().whole(HEADING, answer))
        assert (message["stop_reason"], len(message["content"])) == ("max_tokens", 1)
    else:
        with pytest.raises(UpstreamError):
            MessagesSurface().whole(HEADING, answer)


@anyio
async def test_a_stream_that_breaks_ends_with_one_error_on_every_surface(world: World) -> None:
    broken = Step([Delta(content="so")], error=UpstreamError("the runner died"))
    world.script(*[broken] * 3)
    answers: list[httpx.Response] = []
    async with world.client() as client:
        for path, body in BODIES.items():
            answers.append(await client.post(path, json={"model": "fake", "stream": True, **body}))
    for answer in answers:
        assert answer.status_code == 200
        assert answer.text.count("the runner died") >= 1
        assert not any(end in answer.text for end in ("[DONE]", "message_stop", "response.completed"))
        assert '"finish_reason":"stop"' not in answer.text
