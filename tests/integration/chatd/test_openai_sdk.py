"""The official OpenAI client, unmodified, against a chatd process and an Ollama that speaks its real wire."""

import asyncio
from collections.abc import Iterator

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

from tests.integration.chatd.conftest import Distill, Ollama, Setting
from tests.processes import Running

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]


@pytest.fixture
def chatd(setting: Setting, distill: Distill) -> Iterator[Running]:
    with distill.serving(), setting.chatd() as process:
        yield process


@pytest.fixture
def sdk(chatd: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{chatd.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_a_whole_answer(sdk: openai.OpenAI, distill: Distill) -> None:
    raw = sdk.chat.completions.with_raw_response.create(model="ollama/talk", messages=HELLO)
    answer = raw.parse()
    assert answer.choices[0].message.content == "héllo wide world"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 8
    (record,) = distill.wait_for(1)
    assert record["run_id"] == raw.headers["x-run-id"]
    assert record["model"] == {"provider": "ollama", "name": "talk", "digest": "digest-talk"}


def test_a_stream_with_usage(sdk: openai.OpenAI) -> None:
    chunks = list(
        sdk.chat.completions.create(
            model="talk", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "héllo wide world "
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 5
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1


def test_the_stream_helper_puts_tool_calls_together(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.stream(model="tools", messages=HELLO) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].finish_reason == "tool_calls"
    calls = final.choices[0].message.tool_calls or []
    assert [call.function.arguments for call in calls] == ['{"a":1}', '{"a":1}']
    assert len({call.id for call in calls}) == 2
    assert all(call.id.startswith("call_") for call in calls)


def test_structured_output(sdk: openai.OpenAI, ollama: Ollama) -> None:
    class Answer(BaseModel):
        a: int

    parsed = sdk.chat.completions.parse(model="json", messages=HELLO, response_format=Answer)
    assert parsed.choices[0].message.parsed == Answer(a=1)
    assert ollama.asked[-1]["format"]["properties"]["a"]["type"] == "integer"


def test_an_absent_model(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.chat.completions.create(model="ollama/absent", messages=HELLO, stream=True)
    assert (caught.value.code, caught.value.type) == ("model_not_found", "not_found_error")
    assert caught.value.request_id


def test_a_stream_that_breaks(sdk: openai.OpenAI) -> None:
    stream = sdk.chat.completions.create(model="breaks", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError, match="the runner died"):
        list(stream)


def test_models(sdk: openai.OpenAI) -> None:
    assert "ollama/talk" in [model.id for model in sdk.models.list()]
    assert sdk.models.retrieve("ollama/talk").owned_by == "ollama"


def test_the_asynchronous_client(chatd: Running) -> None:
    async def story() -> None:
        async with openai.AsyncOpenAI(base_url=f"{chatd.url}/v1", api_key="unused") as client:
            whole = await client.chat.completions.create(model="talk", messages=HELLO)
            assert whole.choices[0].message.content == "héllo wide world"
            stream = await client.chat.completions.create(model="talk", messages=HELLO, stream=True)
            text = [chunk.choices[0].delta.content or "" async for chunk in stream]
            assert "".join(text) == "héllo wide world "

    asyncio.run(story())


def test_chatd_as_the_openai_provider_of_another_chatd(chatd: Running, setting: Setting) -> None:
    with (
        setting.chatd(CHATD_OPENAI_BASE_URL=f"{chatd.url}/v1", CHATD_OPENAI_API_KEY="sk-x") as second,
        openai.OpenAI(base_url=f"{second.url}/v1", api_key="unused", max_retries=0) as client,
    ):
        assert "openai/ollama/talk" in [model.id for model in client.models.list()]
        stream = client.chat.completions.create(
            model="openai/ollama/tools",
            messages=HELLO,
            stream=True,
            extra_headers={"x-stillhouse-principal": "ada"},
        )
        chunks = list(stream)
        assert chunks[-1].choices[0].finish_reason == "tool_calls"
        assert httpx.get(f"{second.url}/readyz", trust_env=False).json()["status"] == "ready"


def test_the_outside_is_not_told_who_asks(chatd: Running, setting: Setting, distill: Distill) -> None:
    with setting.chatd(
        CHATD_OPENAI_BASE_URL=f"{chatd.url}/v1", STILLHOUSE_DATA=f"{setting.folder}/2"
    ) as second:
        httpx.post(
            f"{second.url}/v1/chat/completions",
            json={"model": "openai/talk", "messages": HELLO},
            headers={"x-stillhouse-principal": "ada", "x-stillhouse-roles": "forklift"},
            trust_env=False,
        ).raise_for_status()
    by_provider = {record["model"]["provider"]: record["principal"] for record in distill.wait_for(2)}
    assert by_provider == {"openai": "ada", "ollama": None}
