"""The official clients, unmodified, against a gateway: what they make of our bytes is what counts."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import anthropic
import httpx
import openai
import orjson
import pytest
from langchain_core.messages import AIMessageChunk
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

from services.keys import KeyGrant, KeyStore
from services.testing import free_port
from tests.bench.ollama_stub import DIMENSION
from tests.bench.ollama_stub import MODEL as EMBEDDING_MODEL
from tests.integration.chatd.conftest import Distill, Ollama, OllamaHandler, serving
from tests.processes import running
from tests.second_runtime import require_node, run_node

pytestmark = pytest.mark.enable_socket

SAID = "héllo wide world"
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
USER: list[anthropic.types.MessageParam] = [{"role": "user", "content": "hello"}]
ADD: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class House:
    """A gateway before chatd and embedd, and what chatd asks."""

    url: str
    key: str
    ollama: Ollama

    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0)

    def anthropic(self, **more: Any) -> anthropic.Anthropic:
        return anthropic.Anthropic(base_url=self.url, api_key=self.key, max_retries=0, **more)

    def langchain(self, model: str, **more: Any) -> ChatOpenAI:
        return ChatOpenAI(**{"model": model, **self.at, "max_retries": 0, **more})

    @property
    def at(self) -> dict[str, Any]:
        return {"base_url": f"{self.url}/v1", "api_key": self.key}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("clients")
    key, _ = KeyStore(folder / "data").create(KeyGrant(name="clients", scopes=("chat", "embed")))
    ollama, distill = Ollama(), Distill(free_port())
    with (
        serving(ollama, OllamaHandler, free_port()) as ollama_url,
        distill.serving() as distill_url,
        running("tests.bench.ollama_stub", folder) as vectors,
        running("chatd", folder, env={"OLLAMA_HOST": ollama_url, "CHATD_DISTILL_URL": distill_url}) as chatd,
        running("embedd", folder, env={"OLLAMA_HOST": vectors.url}) as embedd,
        running(
            "gateway", folder, env={"GATEWAY_CHATD_URLS": chatd.url, "GATEWAY_EMBEDD_URLS": embedd.url}
        ) as gateway,
    ):
        yield House(gateway.url, key, ollama)


class Answer(BaseModel):
    a: int


# --- openai -----------------------------------------------------------------------------------


def test_openai_whole_and_streamed(house: House) -> None:
    with house.openai() as client:
        whole = client.chat.completions.create(model="talk", messages=HELLO)
        assert whole.choices[0].message.content == SAID
        assert whole.usage is not None
        assert whole.usage.total_tokens == 8
        assert whole._request_id
        chunks = list(client.chat.completions.create(model="talk", messages=HELLO, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).strip() == SAID
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1


def test_openai_tools_and_structured_output(house: House) -> None:
    with house.openai() as client:
        tool: Any = {"type": "function", "function": {"name": "add", "parameters": ADD}}
        with client.chat.completions.stream(model="tools", messages=HELLO, tools=[tool]) as stream:
            called = stream.get_final_completion().choices[0]
        parsed = client.chat.completions.parse(model="json", messages=HELLO, response_format=Answer)
    assert called.finish_reason == "tool_calls"
    assert [call.function.arguments for call in called.message.tool_calls or ()] == ['{"a":1}'] * 2
    assert parsed.choices[0].message.parsed == Answer(a=1)


def test_openai_embeddings_and_models(house: House) -> None:
    with house.openai() as client:
        vectors = client.embeddings.create(model=EMBEDDING_MODEL, input=["one", "two"])
        models = [model.id for model in client.models.list()]
        assert client.models.retrieve("ollama/talk").owned_by == "ollama"
    assert [len(item.embedding) for item in vectors.data] == [DIMENSION] * 2
    assert "ollama/talk" in models


def test_openai_errors(house: House) -> None:
    with house.openai() as client:
        with pytest.raises(openai.NotFoundError) as absent:
            client.chat.completions.create(model="ollama/absent", messages=HELLO)
        with pytest.raises(openai.APIError, match="the runner died"):
            list(client.chat.completions.create(model="breaks", messages=HELLO, stream=True))
        with pytest.raises(openai.BadRequestError) as bad:
            client.chat.completions.create(model="talk", messages=[])
    assert (absent.value.code, absent.value.type) == ("model_not_found", "not_found_error")
    assert absent.value.request_id
    assert bad.value.param == "messages"


def test_openai_asynchronous(house: House) -> None:
    async def story() -> None:
        async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=house.key) as client:
            whole = await client.chat.completions.create(model="talk", messages=HELLO)
            assert whole.choices[0].message.content == SAID
            stream = await client.chat.completions.create(model="talk", messages=HELLO, stream=True)
            texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
            assert "".join(texts).strip() == SAID
            response = await client.responses.create(model="talk", input="hello")
            assert response.output_text == SAID

    asyncio.run(story())


# --- openai, the newer API --------------------------------------------------------------------


def test_responses_whole(house: House) -> None:
    with house.openai() as client:
        raw = client.responses.with_raw_response.create(
            model="talk",
            instructions="Answer in one word.",
            input=[
                {"role": "user", "content": "hello"},
                {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "call_1", "output": "3"},
            ],
        )
        parsed = client.responses.parse(model="json", input="hello", text_format=Answer)
    answer = raw.parse()
    assert (answer.status, answer.output_text) == ("completed", SAID)
    assert answer.usage is not None
    assert answer.usage.total_tokens == 8
    assert raw.headers["x-run-id"] in answer.id
    assert parsed.output_parsed == Answer(a=1)
    heard = house.ollama.asked[-2]["messages"]
    assert [message["role"] for message in heard] == ["system", "user", "assistant", "tool"]


def test_responses_streamed(house: House) -> None:
    with house.openai() as client:
        with client.responses.stream(model="talk", input="hello") as stream:
            events = [event.type for event in stream]
            final = stream.get_final_response()
        with client.responses.stream(model="tools", input="hello") as stream:
            stream.until_done()
            calls = stream.get_final_response().output
        with pytest.raises(openai.APIError, match="the runner died"):
            list(client.responses.create(model="breaks", input="hello", stream=True))
    assert final.output_text.strip() == SAID
    assert final.usage is not None
    assert final.usage.output_tokens == 3
    assert events[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert events[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [(call.type, getattr(call, "arguments", None)) for call in calls] == [
        ("function_call", '{"a":1}')
    ] * 2


@pytest.mark.parametrize("field", ["store", "background"])
def test_responses_stores_nothing(house: House, field: Literal["store", "background"]) -> None:
    with house.openai() as client, pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="talk", input="hello", extra_body={field: True})
    assert refused.value.param == field


# --- anthropic --------------------------------------------------------------------------------


def test_anthropic_whole(house: House) -> None:
    with house.anthropic() as client:
        raw = client.messages.with_raw_response.create(
            model="talk", max_tokens=64, system="Be short.", messages=USER
        )
    message = raw.parse()
    assert [block.type for block in message.content] == ["text"]
    assert isinstance(message.content[0], anthropic.types.TextBlock)
    assert message.content[0].text == SAID
    assert message.stop_reason == "end_turn"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (5, 3)
    assert message._request_id == raw.headers["x-request-id"]
    assert house.ollama.asked[-1]["options"]["num_predict"] == 64


def test_anthropic_streamed(house: House) -> None:
    with house.anthropic() as client:
        with client.messages.stream(model="talk", max_tokens=64, messages=USER) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        with pytest.raises(anthropic.APIStatusError, match="the runner died"):
            list(client.messages.create(model="breaks", max_tokens=64, messages=USER, stream=True))
    assert text.strip() == SAID
    assert (final.stop_reason, final.usage.input_tokens, final.usage.output_tokens) == ("end_turn", 5, 3)


@pytest.mark.parametrize("streamed", [False, True])
def test_anthropic_tools(house: House, *, streamed: bool) -> None:
    tools: list[anthropic.types.ToolParam] = [{"name": "add", "input_schema": ADD}]
    turns: list[anthropic.types.MessageParam] = [
        *USER,
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "call_9", "name": "add", "input": {"a": 2}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_9", "content": "3"}]},
    ]
    with house.anthropic() as client:
        if streamed:
            with client.messages.stream(model="tools", max_tokens=64, messages=turns, tools=tools) as stream:
                message: anthropic.types.Message = stream.get_final_message()
        else:
            message = client.messages.create(model="tools", max_tokens=64, messages=turns, tools=tools)
    assert message.stop_reason == "tool_use"
    calls = [block for block in message.content if isinstance(block, anthropic.types.ToolUseBlock)]
    assert [(call.name, call.input) for call in calls] == [("add", {"a": 1})] * 2
    assert len({call.id for call in calls}) == 2
    heard = house.ollama.asked[-1]["messages"]
    assert [message["role"] for message in heard] == ["user", "assistant", "tool"]


def test_anthropic_errors_and_the_older_header(house: House) -> None:
    with house.anthropic() as client:
        with pytest.raises(anthropic.NotFoundError) as absent:
            client.messages.create(model="ollama/absent", max_tokens=64, messages=USER)
        with pytest.raises(anthropic.BadRequestError, match="top_k"):
            client.messages.create(model="talk", max_tokens=64, messages=USER, extra_body={"top_k": 3})
    assert absent.value.request_id
    older = httpx.post(
        f"{house.url}/v1/messages",
        json={"model": "talk", "max_tokens": 64, "messages": USER},
        headers={"x-api-key": house.key, "anthropic-version": "2023-06-01"},
        trust_env=False,
    )
    assert older.json()["content"][0]["text"] == SAID


# --- langchain --------------------------------------------------------------------------------


def test_langchain(house: House) -> None:
    assert house.langchain("talk").invoke("hello").content == SAID
    pieces = [piece.content for piece in house.langchain("talk").stream("hello")]
    assert "".join(map(str, pieces)).strip() == SAID
    add = {"type": "function", "function": {"name": "add", "parameters": ADD}}
    called = house.langchain("tools").bind_tools([add]).invoke("hello")
    assert [call["args"] for call in called.tool_calls] == [{"a": 1}, {"a": 1}]
    gathered = AIMessageChunk(content="")
    for piece in house.langchain("tools").bind_tools([add]).stream("hello"):
        gathered += piece  # type: ignore[assignment]  # a chunk and a chunk are a chunk
    assert [call["args"] for call in gathered.tool_calls] == [{"a": 1}, {"a": 1}]
    structured = house.langchain("json", max_tokens=32).with_structured_output(Answer).invoke("hello")
    assert structured == Answer(a=1)


def test_langchain_over_responses(house: House) -> None:
    model = house.langchain("talk", use_responses_api=True)
    assert model.invoke("hello").text == SAID
    assert "".join(piece.text for piece in model.stream("hello")).strip() == SAID


def test_langchain_embeddings(house: House) -> None:
    # Otherwise it sends the numbers of OpenAI's tokens in place of texts.
    embeddings = OpenAIEmbeddings(model=EMBEDDING_MODEL, check_embedding_ctx_length=False, **house.at)
    assert [len(vector) for vector in embeddings.embed_documents(["one", "two"])] == [DIMENSION] * 2


# --- node -------------------------------------------------------------------------------------


def test_openai_for_node(house: House) -> None:
    require_node()
    said = orjson.loads(run_node("openai_client.mjs", house.url, house.key))
    assert said.pop("requestId")
    assert said.pop("runId")
    assert "ollama/talk" in said.pop("models")
    assert "the runner died" in said.pop("broken")
    assert said.pop("streamed").strip() == SAID
    assert said == {
        "whole": SAID,
        "finish": "stop",
        "total": 8,
        "usage": 8,
        "calls": [{"a": 1}, {"a": 1}],
        "calledFinish": "tool_calls",
        "parsed": {"a": 1},
        "response": SAID,
        "responseCalls": [["function_call", '{"a":1}']] * 2,
        "widths": [DIMENSION] * 2,
        "error": ["NotFoundError", 404, "model_not_found", "not_found_error", True],
    }
