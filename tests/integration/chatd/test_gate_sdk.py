"""The official OpenAI client, unmodified, and a chatd that holds answers until validators let them go."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

from tests.integration.chatd.conftest import Distill, Ollama, Setting
from tests.processes import Running, running

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]


class Answer(BaseModel):
    a: int


def wanting(**properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": [*properties]}
    return {"validate": {"kind": "json_schema", "context": {"schema": schema}}}


RIGHT = wanting(a={"const": 1})
WRONG = wanting(a={"const": 2})


@pytest.fixture(scope="module")
def validators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder: Path = tmp_path_factory.mktemp("validators")
    with running("validators", folder) as process:
        yield process


@pytest.fixture
def chatd(setting: Setting, distill: Distill, validators: Running) -> Iterator[Running]:
    with distill.serving(), setting.chatd(CHATD_VALIDATORS_URL=validators.url) as process:
        yield process


@pytest.fixture
def sdk(chatd: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{chatd.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_an_accepted_answer(sdk: openai.OpenAI, distill: Distill) -> None:
    raw = sdk.chat.completions.with_raw_response.create(model="json", messages=HELLO, extra_body=RIGHT)
    answer = raw.parse()
    assert answer.choices[0].message.content == '{"a":1}'
    assert answer.choices[0].finish_reason == "stop"
    assert raw.headers["x-verdict"] == "accepted"
    (record,) = distill.wait_for(1)
    assert record["run_id"] == raw.headers["x-run-id"]
    assert record["verdict"]["ok"] is True
    assert record["verdict"]["validator"]["policy_version"] == raw.headers["x-policy-version"]


def test_a_rejected_answer_is_a_refusal(sdk: openai.OpenAI) -> None:
    raw = sdk.chat.completions.with_raw_response.create(model="json", messages=HELLO, extra_body=WRONG)
    answer = raw.parse()
    assert answer.choices[0].message.content is None
    assert "schema.invalid" in (answer.choices[0].message.refusal or "")
    assert answer.choices[0].finish_reason == "content_filter"
    assert (raw.headers["x-verdict"], raw.headers["x-verdict-codes"]) == ("rejected", "schema.invalid")
    assert answer.usage is not None


def test_streams_follow_the_same_rule(sdk: openai.OpenAI) -> None:
    for body, content, refused in ((RIGHT, '{"a":1}', False), (WRONG, "", True)):
        with sdk.chat.completions.with_streaming_response.create(
            model="json", messages=HELLO, stream=True, extra_body=body
        ) as response:
            assert response.headers["x-verdict"] == ("rejected" if refused else "accepted")
            chunks = list(response.parse())
        choices = [choice for chunk in chunks for choice in chunk.choices]
        assert "".join(choice.delta.content or "" for choice in choices) == content
        assert bool("".join(choice.delta.refusal or "" for choice in choices)) is refused
        assert choices[-1].finish_reason == ("content_filter" if refused else "stop")


def test_the_client_s_own_parsing_raises_on_a_refusal(sdk: openai.OpenAI) -> None:
    parsed = sdk.chat.completions.parse(
        model="json", messages=HELLO, response_format=Answer, extra_body=RIGHT
    )
    assert parsed.choices[0].message.parsed == Answer(a=1)
    with pytest.raises(openai.ContentFilterFinishReasonError):
        sdk.chat.completions.parse(model="json", messages=HELLO, response_format=Answer, extra_body=WRONG)


def test_tool_calls_are_judged_by_their_arguments(sdk: openai.OpenAI) -> None:
    tools: Any = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    right = sdk.chat.completions.create(model="tools", messages=HELLO, tools=tools, extra_body=RIGHT)
    wrong = sdk.chat.completions.create(model="tools", messages=HELLO, tools=tools, extra_body=WRONG)
    calls: Any = right.choices[0].message.tool_calls
    assert [call.function.arguments for call in calls] == ['{"a":1}', '{"a":1}']
    assert (wrong.choices[0].message.tool_calls, wrong.choices[0].finish_reason) == (None, "content_filter")


def test_an_unknown_field_is_the_client_s_bad_request(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.create(
            model="json", messages=HELLO, extra_body={"validate": {"kind": "json_schema", "strict": True}}
        )
    assert caught.value.param == "validate.strict"


@pytest.mark.parametrize("stream", [False, True])
def test_without_validators_the_answer_is_503(setting: Setting, ollama: Ollama, stream: bool) -> None:
    with (
        setting.chatd(CHATD_VALIDATORS_URL="http://127.0.0.1:9") as chatd,
        openai.OpenAI(base_url=f"{chatd.url}/v1", api_key="unused", max_retries=0) as client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        client.chat.completions.create(model="json", messages=HELLO, stream=stream, extra_body=RIGHT)
    assert (caught.value.status_code, caught.value.code) == (503, "validators_down")
    assert ollama.asked == []


def test_an_answer_that_outgrows_the_buffer_is_given_up(
    setting: Setting, validators: Running, distill: Distill
) -> None:
    with (
        distill.serving(),
        setting.chatd(CHATD_VALIDATORS_URL=validators.url, CHATD_ANSWER_BYTES_MAX="1024") as chatd,
    ):
        body = {"model": "long", "messages": HELLO, "stream": True, **RIGHT}
        answer = httpx.post(f"{chatd.url}/v1/chat/completions", json=body, trust_env=False)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_answer_too_large")


def test_hanging_up_while_an_answer_is_held_cancels_the_model(
    setting: Setting, validators: Running, ollama: Ollama, distill: Distill
) -> None:
    with distill.serving(), setting.chatd(CHATD_VALIDATORS_URL=validators.url) as chatd:
        body = {"model": "silent", "messages": HELLO, "stream": True, **RIGHT}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{chatd.url}/v1/chat/completions", json=body, timeout=0.5, trust_env=False)
        assert ollama.gone.wait(30)
        (record,) = distill.wait_for(1)
    assert record["attempts"][0]["status"] == "aborted"
