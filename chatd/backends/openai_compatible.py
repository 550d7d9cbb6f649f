"""Any API that speaks OpenAI's chat completions: read liberally, as such servers differ."""

from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson

from chatd.backends.asking import asked_for_json
from chatd.backends.conversation import declared
from chatd.backends.failures import NO_REASON, error_in, failure, invalid, status_in, truncated
from chatd.backends.provider import (
    Completion,
    Delta,
    Lack,
    ModelInfo,
    ToolCallDelta,
    call_id,
    count_in,
    finish_reason,
    parse_object,
    refuse,
    text_in,
)
from chatd.backends.upstream import Answer, Upstream
from schemas.base import JsonObject
from schemas.chat import (
    ChatMessage,
    ChatRequest,
    FinishReason,
    FunctionCall,
    JsonObjectFormat,
    JsonSchemaFormat,
    ToolCall,
)
from schemas.runs import Usage
from services.errors import PlatformError

DONE: Final = b"[DONE]"
OURS: Final = {"stream_options", "validate_", "messages"}
THOUGHTS: Final = {"reasoning", "reasoning_content"}
TARGET: Final = "/chat/completions"


@dataclass(frozen=True, slots=True)
class Dialect:
    """Where a server of this API differs from OpenAI's own.

    `response_format` is the strictest form that it holds answers to by itself, `reasoning_field` where it
    wants its earlier thinking back, `lacks` names the parameters that it does not honour.
    """

    developer_role: bool = True
    stream_usage: bool = True
    tokens_field: Literal["as_given", "max_tokens", "max_completion_tokens"] = "as_given"
    response_format: Literal["json_schema", "json_object", "none"] = "json_schema"
    reasoning_field: Literal["reasoning", "reasoning_content"] | None = None
    lacks: Collection[str] = ()


class OpenAICompatibleProvider:
    """Speaks `/chat/completions` and `/models` below a base URL."""

    api: str = "openai"

    def __init__(self, upstream: Upstream, dialect: Dialect | None = None) -> None:
        self._upstream = upstream
        self._dialect = dialect or Dialect()

    @property
    def name(self) -> str:
        return self._upstream.name

    @property
    def keys(self) -> int:
        return self._upstream.keys

    @property
    def config(self) -> JsonObject:
        return {"provider": self.name, "api": self.api, "base_url": self._upstream.base_url}

    def retire(self) -> None:
        self._upstream.retire()

    def lacking(self, request: ChatRequest) -> tuple[Lack, ...]:
        lacks = [Lack("n", "one choice a call is supported")] if (request.n or 1) > 1 else []
        return (*lacks, *declared(request, self._dialect.lacks))

    async def complete(self, request: ChatRequest, *, key: int = 0) -> Completion:
        body = self._body(request, stream=False)
        async with self._upstream.post(TARGET, body, key=key) as answer:
            return self._completion(await self._whole(answer))

    async def stream(self, request: ChatRequest, *, key: int = 0) -> AsyncGenerator[Delta, None]:
        body = self._body(request, stream=True)
        async with self._upstream.post(TARGET, body, key=key) as answer:
            if not answer.good:
                await self._whole(answer)
            reading = _Reading(self.name)
            async with aclosing(answer.events()) as incoming:
                async for event in incoming:
                    if event.startswith(DONE):
                        reading.done = answer.said_all = True
                        break
                    chunk = self._checked(parse_object(self.name, event))
                    if (delta := reading.read(chunk, self._usage(chunk))) is not None:
                        yield delta
            reason = self._finish(reading.finish, with_tool_calls=bool(reading.calls))
            yield reading.end(reason)

    async def models(self) -> list[ModelInfo]:
        answer, body = await self._upstream.get("/models")
        listed = self._parse(body, answer).get("data")
        return [
            ModelInfo(str(item["id"]), created if isinstance(created := item.get("created"), int) else 0)
            for item in (listed if isinstance(listed, list) else ())
            if isinstance(item, dict) and "id" in item
        ]

    async def digest(self, model: str) -> str | None:  # noqa: ARG002 - this API has no digests
        return None

    # --- what goes out ----------------------------------------------------------------------

    def _body(self, request: ChatRequest, *, stream: bool) -> bytes:
        refuse(self.name, self.lacking(request))
        request = self._formatted(request)
        body = request.model_dump(
            mode="json", by_alias=True, exclude_unset=True, exclude_none=True, exclude=OURS
        )
        body["messages"] = [self._message(message) for message in request.messages]
        if self._dialect.tokens_field != "as_given" and request.tokens_max is not None:
            for field in ("max_tokens", "max_completion_tokens"):
                body.pop(field, None)
            body[self._dialect.tokens_field] = request.tokens_max
        body["stream"] = stream
        if stream and self._dialect.stream_usage:
            body["stream_options"] = {"include_usage": True}  # we meter every stream, asked or not
        body.update(self._extras())
        return orjson.dumps(body)

    def _message(self, message: ChatMessage) -> dict[str, Any]:
        said = message.model_dump(mode="json", exclude_none=True, exclude=THOUGHTS)
        if message.role == "developer" and not self._dialect.developer_role:
            said["role"] = "system"
        if self._dialect.reasoning_field is not None and message.thoughts is not None:
            said[self._dialect.reasoning_field] = message.thoughts
        return said

    def _formatted(self, request: ChatRequest) -> ChatRequest:
        """The request with no stricter `response_format` than the server can hold an answer to."""
        able, wanted = self._dialect.response_format, request.response_format
        if able == "json_schema" or not isinstance(wanted, JsonSchemaFormat | JsonObjectFormat):
            return request
        if able == "json_object" and isinstance(wanted, JsonObjectFormat):
            return request
        weaker = JsonObjectFormat(type="json_object") if able == "json_object" else None
        return asked_for_json(request).model_copy(update={"response_format": weaker})

    def _extras(self) -> Mapping[str, Any]:
        """What this API takes beyond OpenAI's fields."""
        return {}

    # --- what comes back --------------------------------------------------------------------

    async def _whole(self, answer: Answer) -> JsonObject:
        return self._parse(await answer.body(), answer)

    def _parse(self, body: bytes, answer: Answer) -> JsonObject:
        if answer.good:
            return self._checked(parse_object(self.name, body))
        raise self._failure(answer.status, error_in(body), answer.headers)

    def _checked(self, answer: JsonObject) -> JsonObject:
        if error := answer.get("error"):  # some send it with a 200
            raise self._failure(status_in(error), error, {})
        return answer

    def _failure(self, status: int, error: Any, headers: Mapping[str, str]) -> PlatformError:
        said = error if isinstance(error, dict) else {"message": error}
        reason = said.get("message") or said.get("detail") or NO_REASON
        return failure(
            self.name,
            status,
            reason if isinstance(reason, str) else orjson.dumps(reason).decode(),
            headers,
            param=_text_or_none(said.get("param")),
            code=said.get("code") if isinstance(said.get("code"), str) else said.get("type"),
        )

    def _completion(self, answer: JsonObject) -> Completion:
        choice = _first_choice(answer)
        said = choice.get("message") if choice else None
        if choice is None or not isinstance(said, dict):
            raise invalid(self.name, "an answer without a choice")
        calls = tuple(_tool_call(self.name, call) for call in said.get("tool_calls") or ())
        return Completion(
            content=text_in(self.name, said.get("content")) or None,
            finish_reason=self._finish(choice.get("finish_reason"), with_tool_calls=bool(calls)),
            usage=self._usage(answer) or Usage(),
            tool_calls=calls,
            reasoning=_reasoning(self.name, said) or None,
            refusal=text_in(self.name, said.get("refusal")) or None,
            raw_usage=_object_or_none(answer.get("usage")),
            logprobs=_object_or_none(choice.get("logprobs")),
        )

    def _finish(self, said: object, *, with_tool_calls: bool) -> FinishReason:
        if said == "error":  # some end so where the model behind them failed
            raise failure(self.name, 502, "the model failed before its answer was finished", {})
        return finish_reason(said, with_tool_calls=with_tool_calls)

    def _usage(self, answer: JsonObject) -> Usage | None:
        usage = answer.get("usage")
        if not isinstance(usage, dict):
            return None
        return Usage(
            prompt_tokens=count_in(usage.get("prompt_tokens")),
            completion_tokens=count_in(usage.get("completion_tokens")),
            cost_usd=self._cost(usage),
        )

    def _cost(self, usage: JsonObject) -> float | None:  # noqa: ARG002 - most say none
        return None


class _Reading:
    """One stream as it is read: what has finished it, and which tool calls have been seen."""

    def __init__(self, provider: str) -> None:
        self.done = False
        self.finish: object = None
        self.calls: dict[int, str] = {}
        self._provider = provider
        self._usage: Usage | None = None
        self._raw_usage: JsonObject | None = None

    def read(self, chunk: JsonObject, usage: Usage | None) -> Delta | None:
        """What a chunk adds. Finish and usage are kept back for the end, as they come in either order."""
        self._usage = usage or self._usage
        self._raw_usage = _object_or_none(chunk.get("usage")) or self._raw_usage
        choice = _first_choice(chunk)
        if choice is None:
            return None
        self.finish = choice.get("finish_reason") or self.finish
        said = choice.get("delta")
        if not isinstance(said, dict):
            return None
        delta = Delta(
            content=text_in(self._provider, said.get("content")),
            reasoning=_reasoning(self._provider, said),
            tool_calls=tuple(self._piece(call) for call in said.get("tool_calls") or ()),
            refusal=text_in(self._provider, said.get("refusal")),
            logprobs=_object_or_none(choice.get("logprobs")),
        )
        return delta if delta.has_content or delta.logprobs else None

    def _piece(self, call: Any) -> ToolCallDelta:
        function = (call.get("function") or {}) if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise invalid(self._provider, "a malformed tool call")
        index, offered = call.get("index"), _text_or_none(call.get("id"))
        if not isinstance(index, int) or isinstance(index, bool):  # a new id, or a name, begins a call
            begins = not self.calls or offered is not None or bool(function.get("name"))
            index = len(self.calls) if begins else len(self.calls) - 1
        arguments = _arguments(self._provider, function.get("arguments"))
        extra = _object_or_none(call.get("extra_content"))
        if index in self.calls:
            return ToolCallDelta(index, arguments, extra=extra)
        self.calls[index] = call_id(offered)
        name = text_in(self._provider, function.get("name"))
        return ToolCallDelta(index, arguments, id=self.calls[index], name=name, extra=extra)

    def end(self, reason: FinishReason) -> Delta:
        """The last delta. A stream that just stops, with neither a reason nor `[DONE]`, was cut."""
        if self.finish is None and not self.done:
            raise truncated(self._provider)
        return Delta(finish_reason=reason, usage=self._usage or Usage(), raw_usage=self._raw_usage)


def _first_choice(answer: JsonObject) -> dict[str, Any] | None:
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return None
    return choices[0]


def _reasoning(provider: str, said: dict[str, Any]) -> str:
    """Thinking, under either of the two names that servers give it."""
    return text_in(provider, said.get("reasoning") or said.get("reasoning_content"))


def _arguments(provider: str, said: Any) -> str:
    """Arguments as text; some servers send the object itself."""
    return orjson.dumps(said).decode() if isinstance(said, dict) else text_in(provider, said)


def _tool_call(provider: str, call: Any) -> ToolCall:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise invalid(provider, "a tool call without a function")
    return ToolCall(
        id=call_id(_text_or_none(call.get("id"))),
        function=FunctionCall(
            name=text_in(provider, function.get("name")),
            arguments=_arguments(provider, function.get("arguments")) or "{}",
        ),
        extra_content=_object_or_none(call.get("extra_content")),
    )


def _object_or_none(value: Any) -> JsonObject | None:
    return value if isinstance(value, dict) and value else None


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None
