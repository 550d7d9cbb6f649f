"""What each provider is asked for, in its own words: nothing of a request is lost on the way."""

from typing import Any

import orjson
import pytest

from chatd.backends import without
from schemas.chat import ChatRequest
from services.errors import InvalidRequest
from tests.stubs.chat.asking import ask
from tests.stubs.chat.formats import FORMATS, Said, provider, whole
from tests.stubs.chat.wire import serving

pytestmark = pytest.mark.anyio

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "be kind"},
    {"role": "developer", "content": "be brief"},
    {"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE, {"type": "text", "text": "b"}]},
    {
        "role": "assistant",
        "content": "so:",
        "tool_calls": [
            {"id": "call_1", "function": {"name": "f", "arguments": '{"x":1}'}},
            {"id": "call_2", "function": {"name": "g", "arguments": ""}},
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "42"},
    {"role": "tool", "tool_call_id": "call_2", "content": '{"y":2}'},
    {"role": "user", "content": "go on"},
]
TOOLS = [
    {"type": "function", "function": {"name": "f", "description": "d", "parameters": {**SCHEMA, "x": None}}},
    {"type": "function", "function": {"name": "g"}},
]
FULL: dict[str, Any] = {
    "messages": CONVERSATION,
    "tools": TOOLS,
    "tool_choice": "auto",
    "max_tokens": 5,
    "max_completion_tokens": 9,
    "stop": ["end", "stop"],
    "stream": False,
    "user": "u",
    "unknown": 1,
}


async def asked(kind: str, request: ChatRequest, extra: str = "") -> tuple[dict[str, Any], dict[str, str]]:
    async with serving(whole(FORMATS[kind], Said(["a"]))) as server:
        await provider(kind, server.url, extra=extra).complete(request)
    return server.asked[0].json, server.asked[0].headers


async def refused(kind: str, extra: str = "", **params: Any) -> str | None:
    with pytest.raises(InvalidRequest) as caught:
        await provider(kind, "http://127.0.0.1:1", extra=extra).complete(ask(**params))
    return caught.value.param


def json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}


# --- Ollama -------------------------------------------------------------------------------------


async def test_ollama() -> None:
    body, _ = await asked("ollama", ask(**FULL, seed=3, response_format=json_schema(SCHEMA)))
    assert body == {
        "model": "m",
        "stream": False,
        "think": False,
        "truncate": False,
        "keep_alive": "30m",
        "options": {"num_predict": 9, "stop": ["end", "stop"], "seed": 3},
        "format": SCHEMA,
        "tools": [
            {"type": "function", "function": TOOLS[0]["function"]},
            {"type": "function", "function": {"name": "g"}},
        ],
        "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "a\nb", "images": ["AAAA"]},
            {
                "role": "assistant",
                "content": "so:",
                "tool_calls": [
                    {"id": "call_1", "function": {"name": "f", "arguments": {"x": 1}}},
                    {"id": "call_2", "function": {"name": "g", "arguments": {}}},
                ],
            },
            {"role": "tool", "content": "42", "tool_call_id": "call_1", "tool_name": "f"},
            {"role": "tool", "content": '{"y":2}', "tool_call_id": "call_2", "tool_name": "g"},
            {"role": "user", "content": "go on"},
        ],
    }


@pytest.mark.parametrize(
    ("effort", "think"), [("none", False), ("minimal", "low"), ("high", "high"), ("xhigh", "max")]
)
async def test_ollama_thinks_as_much_as_asked(effort: str, think: object) -> None:
    body, _ = await asked("ollama", ask(reasoning_effort=effort))
    assert body["think"] == think


async def test_log_probabilities_that_ollama_does_not_give_are_refused() -> None:
    async with serving(whole(FORMATS["ollama"], Said(["a"]))) as server:
        with pytest.raises(InvalidRequest) as caught:
            await provider("ollama", server.url).complete(ask(logprobs=True, top_logprobs=2))
    assert caught.value.param == "logprobs"
    assert (server.asked[0].json["logprobs"], server.asked[0].json["top_logprobs"]) == (True, 2)


# --- OpenAI and those who speak like it -----------------------------------------------------------


async def test_openai_is_asked_in_the_caller_s_own_words() -> None:
    body, _ = await asked("openai", ask(**FULL, seed=3, logprobs=True, response_format=json_schema(SCHEMA)))
    assert body.pop("messages")[3]["tool_calls"][1] == {
        "id": "call_2",
        "type": "function",
        "function": {"name": "g", "arguments": ""},
    }
    assert body == {
        "model": "m",
        "tools": TOOLS,
        "tool_choice": "auto",
        "max_tokens": 5,
        "max_completion_tokens": 9,
        "stop": ["end", "stop"],
        "stream": False,
        "user": "u",
        "seed": 3,
        "logprobs": True,
        "response_format": json_schema(SCHEMA),
    }


async def test_servers_that_differ_are_asked_as_they_want() -> None:
    extra = 'developer_role = false\ntokens_field = "max_tokens"\nresponse_format = "json_object"\n'
    body, _ = await asked("openai", ask(**FULL, response_format=json_schema(SCHEMA)), extra)
    assert body["max_tokens"] == 9
    assert "max_completion_tokens" not in body
    assert [message["role"] for message in body["messages"][:4]] == ["system", "system", "system", "user"]
    assert orjson.dumps(SCHEMA).decode() in body["messages"][2]["content"]
    assert body["response_format"] == {"type": "json_object"}
    body, _ = await asked(
        "openai", ask(response_format={"type": "json_object"}), 'response_format = "none"\n'
    )
    assert "JSON" in body["messages"][0]["content"]
    assert "response_format" not in body


@pytest.mark.parametrize("sent", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize(
    ("kind", "extra", "field"),
    [
        ("ollama", "", "thinking"),
        ("openai", "", None),
        ("openai", 'reasoning_field = "reasoning_content"\n', "reasoning_content"),
        ("openrouter", "", "reasoning"),
        ("anthropic", "", None),
        ("gemini", "", None),
    ],
)
async def test_earlier_thinking_goes_back_where_it_is_wanted(
    kind: str, extra: str, field: str | None, sent: str
) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho", sent: "hm"}]
    body, _ = await asked(kind, ask(messages=messages), extra)
    if field is None:
        assert '"hm"' not in orjson.dumps(body).decode()
    else:
        assert body["messages"][1] == {"role": "assistant", "content": "ho", field: "hm"}


async def test_openrouter_may_use_only_hosts_that_honour_all() -> None:
    body, headers = await asked("openrouter", ask(seed=1), 'headers = { "x-title" = "Stillhouse" }\n')
    assert body["provider"] == {"require_parameters": True}
    assert body["seed"] == 1
    assert headers["x-title"] == "Stillhouse"


# --- Anthropic ------------------------------------------------------------------------------------


async def test_anthropic() -> None:
    body, headers = await asked("anthropic", ask(**FULL, response_format=json_schema(SCHEMA)))
    assert headers["anthropic-version"] == "2026-10-21"
    assert body == {
        "model": "m",
        "max_tokens": 9,
        "stream": False,
        "stop_sequences": ["end", "stop"],
        "metadata": {"user_id": "u"},
        "system": [{"type": "text", "text": "be kind"}, {"type": "text", "text": "be brief"}],
        "output_config": {
            "format": {"type": "json_schema", "schema": {**SCHEMA, "additionalProperties": False}}
        },
        "tools": [
            {"name": "f", "description": "d", "input_schema": {**SCHEMA, "x": None}},
            {"name": "g", "input_schema": {"type": "object", "properties": {}}},
        ],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
                    },
                    {"type": "text", "text": "b"},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "so:"},
                    {"type": "tool_use", "id": "call_1", "name": "f", "input": {"x": 1}},
                    {"type": "tool_use", "id": "call_2", "name": "g", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "call_1",
                        "content": [{"type": "text", "text": "42"}],
                    },
                    {
                        "type": "tool_result",
                        "tool_use_id": "call_2",
                        "content": [{"type": "text", "text": '{"y":2}'}],
                    },
                    {"type": "text", "text": "go on"},
                ],
            },
        ],
    }


@pytest.mark.parametrize(
    ("params", "choice"),
    [
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, {"type": "tool", "name": "f"}),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            {"tool_choice": "required", "parallel_tool_calls": False},
            {"type": "any", "disable_parallel_tool_use": True},
        ),
        ({}, None),
    ],
)
async def test_anthropic_s_choice_of_tools(params: dict[str, Any], choice: object) -> None:
    body, _ = await asked("anthropic", ask(tools=TOOLS, **params))
    assert body.get("tool_choice") == choice


async def test_anthropic_is_asked_for_what_its_decoder_cannot_hold() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}}}
    for wanted in (json_schema(schema), json_schema({"type": "object"}), {"type": "json_object"}):
        body, _ = await asked("anthropic", ask(response_format=wanted))
        assert "JSON" in body["system"][-1]["text"]
        assert "output_config" not in body


async def test_anthropic_thinks_as_much_as_asked() -> None:
    body, _ = await asked("anthropic", ask(reasoning_effort="high"))
    assert body["thinking"]["type"] == "adaptive"
    assert body["output_config"] == {"effort": "high"}
    body, _ = await asked("anthropic", ask(reasoning_effort="none"))
    assert body["thinking"] == {"type": "disabled"}
    body, _ = await asked("anthropic", ask())
    assert "thinking" not in body
    assert body["max_tokens"] == 16_384


async def test_anthropic_takes_remote_images() -> None:
    content = [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]
    body, _ = await asked("anthropic", ask(messages=[{"role": "user", "content": content}]))
    source = body["messages"][0]["content"][0]["source"]
    assert source == {"type": "url", "url": "https://example.org/a.png"}


async def test_anthropic_s_sampling_depends_on_the_version_of_its_api() -> None:
    assert await refused("anthropic", temperature=0.5) == "temperature"
    assert await refused("anthropic", top_p=0.5) == "top_p"
    older = 'api_version = "2023-06-01"\n'
    body, headers = await asked("anthropic", ask(temperature=0.5, top_p=0.9), older)
    assert (body["temperature"], body["top_p"], headers["anthropic-version"]) == (0.5, 0.9, "2023-06-01")
    assert await refused("anthropic", older, temperature=1.5) == "temperature"


# --- Gemini ---------------------------------------------------------------------------------------


async def test_gemini() -> None:
    body, _ = await asked("gemini", ask(**FULL, seed=3, temperature=0.5, response_format=json_schema(SCHEMA)))
    assert body == {
        "systemInstruction": {"parts": [{"text": "be kind"}, {"text": "be brief"}]},
        "generationConfig": {
            "maxOutputTokens": 9,
            "stopSequences": ["end", "stop"],
            "seed": 3,
            "temperature": 0.5,
            "responseMimeType": "application/json",
            "responseJsonSchema": SCHEMA,
        },
        "tools": [
            {
                "functionDeclarations": [
                    {"name": "f", "description": "d", "parametersJsonSchema": {**SCHEMA, "x": None}},
                    {"name": "g"},
                ]
            }
        ],
        "contents": [
            {
                "role": "user",
                "parts": [
                    {"text": "a"},
                    {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
                    {"text": "b"},
                ],
            },
            {
                "role": "model",
                "parts": [
                    {"text": "so:"},
                    {"functionCall": {"name": "f", "args": {"x": 1}}},
                    {"functionCall": {"name": "g", "args": {}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"name": "f", "response": {"result": "42"}}},
                    {"functionResponse": {"name": "g", "response": {"y": 2}}},
                    {"text": "go on"},
                ],
            },
        ],
    }


@pytest.mark.parametrize(
    ("choice", "calling"),
    [
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ({"type": "function", "function": {"name": "f"}}, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
    ],
)
async def test_gemini_s_choice_of_tools(choice: object, calling: object) -> None:
    body, _ = await asked("gemini", ask(tools=TOOLS, tool_choice=choice))
    assert body["toolConfig"] == {"functionCallingConfig": calling}


async def test_gemini_thinks_as_much_as_asked() -> None:
    body, _ = await asked("gemini", ask(reasoning_effort="low"))
    assert body["generationConfig"]["thinkingConfig"] == {"thinkingLevel": "low", "includeThoughts": True}
    body, _ = await asked("gemini", ask(reasoning_effort="none"))
    assert body["generationConfig"]["thinkingConfig"] == {"thinkingBudget": 0}


async def test_gemini_s_model_cannot_leave_its_place_in_the_path() -> None:
    async with serving(whole(FORMATS["gemini"], Said(["a"]))) as server:
        await provider("gemini", server.url).complete(ask(model="../x?y=z#é"))
    assert server.asked[0].target == "/models/..%2Fx%3Fy%3Dz%23%C3%A9:generateContent"


async def test_gemini_gets_its_thought_signatures_back() -> None:
    call = {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "c2ln"}
    answer = FORMATS["gemini"].whole(Said(["a"]))
    answer["candidates"][0]["content"]["parts"] = [call]
    reply = whole(FORMATS["gemini"], Said(["a"]))
    async with serving(type(reply)([orjson.dumps(answer)]), reply) as server:
        adapter = provider("gemini", server.url)
        done = await adapter.complete(ask())
        said = [one.model_dump(mode="json") for one in done.tool_calls]
        assert said[0]["extra_content"] == {"google": {"thought_signature": "c2ln"}}
        back = {"role": "assistant", "tool_calls": said}
        await adapter.complete(ask(messages=[{"role": "user", "content": "hi"}, back]))
    assert server.asked[1].json["contents"][1]["parts"] == [call]


# --- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("ollama", {"logit_bias": {"1": 2.0}}),
        ("ollama", {"tool_choice": "required"}),
        ("ollama", {"parallel_tool_calls": False, "tools": TOOLS}),
        ("anthropic", {"seed": 1}),
        ("anthropic", {"logprobs": True}),
        ("anthropic", {"presence_penalty": 0.5}),
        ("anthropic", {"frequency_penalty": 0.5}),
        ("anthropic", {"logit_bias": {"1": 2.0}}),
        ("gemini", {"logit_bias": {"1": 2.0}}),
        ("gemini", {"logprobs": True}),
        ("gemini", {"parallel_tool_calls": False, "tools": TOOLS}),
    ],
)
async def test_what_cannot_be_honoured_is_refused_or_dropped(kind: str, params: dict[str, Any]) -> None:
    param = next(iter(params))
    assert await refused(kind, **params) == param
    request = ask(**params)
    lacks = provider(kind, "http://127.0.0.1:1").lacking(request)
    assert [lack.param for lack in lacks] == [param]
    body, _ = await asked(kind, without(request, [lack.param for lack in lacks]))
    assert param not in str(body)


@pytest.mark.parametrize("kind", ["ollama", "anthropic", "gemini"])
async def test_names_of_participants(kind: str) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "user", "content": "ho", "name": "bo"}]
    assert await refused(kind, messages=messages) == "messages.1.name"
    body, _ = await asked(kind, without(ask(messages=messages), ["messages.1.name"]))
    assert "bo" not in str(body)
    body, _ = await asked("openai", ask(messages=messages))
    assert body["messages"][1]["name"] == "bo"


@pytest.mark.parametrize("kind", ["ollama", "gemini"])
@pytest.mark.parametrize("url", ["http://x/a.png", "data:text/plain;base64,AAAA", "data:image/png;base64,!!"])
async def test_images_that_cannot_be_sent(kind: str, url: str) -> None:
    content = [{"type": "image_url", "image_url": {"url": url}}]
    assert (
        await refused(kind, messages=[{"role": "user", "content": content}])
        == "messages.0.content.0.image_url.url"
    )


@pytest.mark.parametrize("kind", ["ollama", "anthropic", "gemini"])
async def test_arguments_that_are_no_object(kind: str) -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": "[]"}}
    assert (
        await refused(kind, messages=[{"role": "assistant", "tool_calls": [call]}]) == "messages.0.tool_calls"
    )


async def test_gemini_refuses_results_of_unknown_calls() -> None:
    messages = [{"role": "tool", "tool_call_id": "x", "content": "1"}]
    assert await refused("gemini", messages=messages) == "messages.0.tool_call_id"
