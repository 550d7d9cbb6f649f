"""Anthropic's Claude, by its own `/v1/messages`."""

from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final

import orjson

from chatd.backends.asking import wish_of
from chatd.backends.conversation import arguments_of, declared, embedded, is_remote, nameless
from chatd.backends.failures import NO_REASON, error_in, failure, invalid, truncated
from chatd.backends.provider import (
    Completion,
    Delta,
    Gathered,
    Lack,
    ModelInfo,
    ToolCallDelta,
    call_id,
    count_in,
    parse_object,
    refuse,
    text_in,
)
from chatd.backends.schemas import natively
from chatd.backends.upstream import Answer, Upstream
from schemas.base import JsonObject
from schemas.chat import (
    ChatMessage,
    ChatRequest,
    FinishReason,
    FunctionDefinition,
    ImagePart,
    JsonSchemaFormat,
    NamedToolChoice,
    TextPart,
)
from schemas.runs import Usage
from services.errors import PlatformError

NO_SAMPLING_SINCE: Final = "2026-10-21"
"""From this version of the API on, `temperature` and `top_p` are refused, whatever their value."""

TEMPERATURE_MAX: Final = 1.0

_FINISH: Final[Mapping[str, FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
_STATUS: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_EFFORT: Final = {"minimal": "low"}
_PARAMS: Final = {
    "thinking": "reasoning_effort",
    "output_config.effort": "reasoning_effort",
    "output_config.format": "response_format",
    "max_tokens": "max_tokens",
    "messages": "messages",
    "tools": "tools",
    "system": "messages",
}


class AnthropicProvider:
    """Speaks `/v1/messages` and `/v1/models`.

    `tokens_max_default` is the limit of answers whose caller names none, as this API demands one.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        api_version: str = "2026-10-21",
        tokens_max_default: int = 16_384,
        lacks: Collection[str] = (),
    ) -> None:
        self._upstream = upstream
        self._api_version = api_version
        self._tokens_max_default = tokens_max_default
        self._lacks = lacks

    @property
    def name(self) -> str:
        return self._upstream.name

    @property
    def keys(self) -> int:
        return self._upstream.keys

    @property
    def config(self) -> JsonObject:
        return {
            "provider": self.name,
            "api": "anthropic",
            "base_url": self._upstream.base_url,
            "api_version": self._api_version,
            "tokens_max_default": self._tokens_max_default,
        }

    def retire(self) -> None:
        self._upstream.retire()

    def lacking(self, request: ChatRequest) -> tuple[Lack, ...]:
        none = "it has no such option"
        samples = self._api_version < NO_SAMPLING_SINCE
        refusals = {
            "n": ((request.n or 1) > 1, "one choice a call is supported"),
            "logprobs": (bool(request.logprobs), "it gives no log probabilities"),
            "top_logprobs": (bool(request.top_logprobs), "it gives no log probabilities"),
            "logit_bias": (bool(request.logit_bias), none),
            "seed": (request.seed is not None, none),
            "presence_penalty": (bool(request.presence_penalty), none),
            "frequency_penalty": (bool(request.frequency_penalty), none),
            "temperature": (
                request.temperature is not None and (not samples or request.temperature > TEMPERATURE_MAX),
                "it goes up to 1" if samples else f"version {self._api_version} of its API has none",
            ),
            "top_p": (
                request.top_p is not None and not samples,
                f"version {self._api_version} of its API has none",
            ),
        }
        lacks = [Lack(param, reason) for param, (refused, reason) in refusals.items() if refused]
        return (*lacks, *nameless(request), *declared(request, self._lacks))

    async def complete(self, request: ChatRequest, *, key: int = 0) -> Completion:
        body = self._body(request, stream=False)
        async with self._upstream.post("/v1/messages", body, key=key, headers=self._version()) as answer:
            said = await self._whole(answer)
        gathered = Gathered()
        for delta in _deltas(self.name, said):
            gathered.add(delta)
        return gathered.completion()

    async def stream(self, request: ChatRequest, *, key: int = 0) -> AsyncGenerator[Delta, None]:
        body = self._body(request, stream=True)
        async with self._upstream.post("/v1/messages", body, key=key, headers=self._version()) as answer:
            if not answer.good:
                await self._whole(answer)
            reading = _Reading(self.name)
            async with aclosing(answer.events()) as incoming:
                async for event in incoming:
                    delta = reading.read(self._checked(parse_object(self.name, event), 502, {}))
                    if delta is not None:
                        yield delta
                    if reading.stopped:
                        break
            yield reading.end()

    async def models(self) -> list[ModelInfo]:
        answer, body = await self._upstream.get("/v1/models?limit=1000", headers=self._version())
        listed = self._parsed(answer, body).get("data")
        return [
            ModelInfo(str(item["id"]), _created(item.get("created_at")))
            for item in (listed if isinstance(listed, list) else ())
            if isinstance(item, dict) and "id" in item
        ]

    async def digest(self, model: str) -> str | None:  # noqa: ARG002 - this API has no digests
        return None

    # --- what goes out ----------------------------------------------------------------------

    def _version(self) -> list[tuple[bytes, bytes]]:
        return [(b"anthropic-version", self._api_version.encode())]

    def _body(self, request: ChatRequest, *, stream: bool) -> bytes:
        refuse(self.name, self.lacking(request))
        system, turns = self._turns(request)
        body: dict[str, Any] = {
            "model": request.model,
            "max_tokens": request.tokens_max or self._tokens_max_default,
            "messages": turns,
            "stream": stream,
            "system": system or None,
            "stop_sequences": [request.stop] if isinstance(request.stop, str) else request.stop,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "metadata": {"user_id": request.user} if request.user else None,
            **_tools(request),
            **_output(request),
        }
        return orjson.dumps({key: value for key, value in body.items() if value is not None})

    def _turns(self, request: ChatRequest) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Instructions, and turns of user and assistant. Results of tools are said by the user."""
        system: list[dict[str, Any]] = []
        turns: list[dict[str, Any]] = []
        for index, message in enumerate(request.messages):
            blocks = self._blocks(message, index)
            if message.role in ("system", "developer"):
                system += blocks
                continue
            role = "assistant" if message.role == "assistant" else "user"
            if message.role == "tool":
                result = {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": blocks}
                blocks = [result]
            if turns and turns[-1]["role"] == role:
                turns[-1]["content"] += blocks
            elif blocks:
                turns.append({"role": role, "content": blocks})
        if _schema(request) is None and (wish := wish_of(request)) is not None:
            system.append({"type": "text", "text": wish})
        return system, turns

    def _blocks(self, message: ChatMessage, index: int) -> list[dict[str, Any]]:
        """The content of a message. Empty texts, which this API refuses, say nothing and are left out."""
        parts = message.content or []
        if isinstance(parts, str):
            parts = [TextPart(type="text", text=parts)]
        blocks: list[dict[str, Any]] = []
        for position, part in enumerate(parts):
            if isinstance(part, ImagePart):
                param = f"messages.{index}.content.{position}.image_url.url"
                blocks.append(self._image(part.image_url.url, param))
            elif part.text:
                blocks.append({"type": "text", "text": part.text})
        calls = [
            {
                "type": "tool_use",
                "id": call.id,
                "name": call.function.name,
                "input": arguments_of(call, index),
            }
            for call in message.tool_calls or ()
        ]
        return blocks + calls

    def _image(self, url: str, param: str) -> dict[str, Any]:
        if is_remote(url):
            return {"type": "image", "source": {"type": "url", "url": url}}
        image = embedded(self.name, url, param)
        source = {"type": "base64", "media_type": image.media_type, "data": image.data}
        return {"type": "image", "source": source}

    # --- what comes back --------------------------------------------------------------------

    async def _whole(self, answer: Answer) -> JsonObject:
        return self._parsed(answer, await answer.body())

    def _parsed(self, answer: Answer, body: bytes) -> JsonObject:
        if answer.good:
            return self._checked(parse_object(self.name, body), 502, {})
        raise self._failure(answer.status, error_in(body), answer.headers)

    def _checked(self, said: JsonObject, status: int, headers: Mapping[str, str]) -> JsonObject:
        if (error := said.get("error")) or said.get("type") == "error":
            kind = error.get("type") if isinstance(error, dict) else None
            raise self._failure(_STATUS.get(str(kind), status), error, headers)
        return said

    def _failure(self, status: int, error: Any, headers: Mapping[str, str]) -> PlatformError:
        said = error if isinstance(error, dict) else {}
        reason = str(said.get("message") or NO_REASON)
        return failure(self.name, status, reason, headers, param=_param_of(reason))


class _Reading:
    """One stream as it is read: its blocks, its usage, and how it stopped."""

    def __init__(self, provider: str) -> None:
        self.stopped = False
        self._provider = provider
        self._finish: object = None
        self._usage: JsonObject = {}
        self._calls: dict[int, int] = {}
        self._silent: set[int] = set()
        """Calls of tools whose arguments have not begun."""

    def read(self, event: JsonObject) -> Delta | None:
        match event.get("type"):
            case "message_start":
                self._count(_object(event.get("message")).get("usage"))
                return self._counted()
            case "content_block_start":
                return self._begin(self._index(event), _object(event.get("content_block")))
            case "content_block_delta":
                return self._piece(self._index(event), _object(event.get("delta")))
            case "content_block_stop" if (index := self._index(event)) in self._silent:
                self._silent.discard(index)
                return Delta(tool_calls=(ToolCallDelta(self._calls[index], "{}"),))
            case "message_delta":
                self._finish = _object(event.get("delta")).get("stop_reason") or self._finish
                self._count(event.get("usage"))
                return self._counted()
            case "message_stop":
                self.stopped = True
        return None  # a ping, or something newer than we are

    def _index(self, event: JsonObject) -> int:
        index = count_in(event.get("index"))
        if index is None:
            raise invalid(self._provider, "a block without an index")
        return index

    def _count(self, usage: Any) -> None:
        """Later counts replace earlier ones; what is left out, or null, stays as it was."""
        self._usage.update({key: value for key, value in _object(usage).items() if value is not None})

    def _counted(self) -> Delta:
        return Delta(usage=_usage(self._usage), raw_usage=dict(self._usage))

    def _begin(self, index: int, block: dict[str, Any]) -> Delta | None:
        match block.get("type"):
            case "tool_use":
                number = self._calls[index] = len(self._calls)
                self._silent.add(index)
                name = text_in(self._provider, block.get("name"))
                return Delta(tool_calls=(ToolCallDelta(number, "", id=call_id(block.get("id")), name=name),))
            case "text" if block.get("text"):
                return Delta(content=text_in(self._provider, block["text"]))
        return None

    def _piece(self, index: int, delta: dict[str, Any]) -> Delta | None:
        match delta.get("type"):
            case "text_delta":
                return Delta(content=text_in(self._provider, delta.get("text")))
            case "thinking_delta":
                return Delta(reasoning=text_in(self._provider, delta.get("thinking")))
            case "input_json_delta" if index in self._calls:
                fragment = text_in(self._provider, delta.get("partial_json"))
                if fragment:
                    self._silent.discard(index)
                return Delta(tool_calls=(ToolCallDelta(self._calls[index], fragment),)) if fragment else None
        return None

    def end(self) -> Delta:
        """The last delta. A stream that ended before `message_stop` was cut."""
        if not self.stopped:
            raise truncated(self._provider)
        return Delta(
            finish_reason=_finish(self._finish, with_tool_calls=bool(self._calls)),
            usage=_usage(self._usage),
            raw_usage=self._usage or None,
        )


def _deltas(provider: str, said: JsonObject) -> list[Delta]:
    """A whole message, as the deltas it would have come in."""
    content = said.get("content")
    if not isinstance(content, list):
        raise invalid(provider, "an answer without content")
    deltas: list[Delta] = []
    calls = 0
    for block in map(_object, content):
        match block.get("type"):
            case "text":
                deltas.append(Delta(content=text_in(provider, block.get("text"))))
            case "thinking":
                deltas.append(Delta(reasoning=text_in(provider, block.get("thinking"))))
            case "tool_use":
                name, arguments = text_in(provider, block.get("name")), orjson.dumps(block.get("input") or {})
                piece = ToolCallDelta(calls, arguments.decode(), id=call_id(block.get("id")), name=name)
                deltas.append(Delta(tool_calls=(piece,)))
                calls += 1
            case None:
                raise invalid(provider, "a malformed block")
    usage = _object(said.get("usage"))
    finish = _finish(said.get("stop_reason"), with_tool_calls=calls > 0)
    return [*deltas, Delta(finish_reason=finish, usage=_usage(usage), raw_usage=usage or None)]


def _finish(said: object, *, with_tool_calls: bool) -> FinishReason:
    reason = _FINISH.get(said, "stop") if isinstance(said, str) else "stop"
    return "tool_calls" if with_tool_calls and reason == "stop" else reason


def _usage(usage: Mapping[str, Any]) -> Usage:
    """Counts as OpenAI counts: its prompt tokens include those read from and written to a cache."""
    prompt = count_in(usage.get("input_tokens"))
    if prompt is not None:
        for kind in ("cache_read_input_tokens", "cache_creation_input_tokens"):
            prompt += count_in(usage.get(kind)) or 0
    return Usage(prompt_tokens=prompt, completion_tokens=count_in(usage.get("output_tokens")))


def _tools(request: ChatRequest) -> dict[str, Any]:
    if not request.tools:
        return {}
    choice: dict[str, Any] | None
    match request.tool_choice:
        case "none":
            choice = {"type": "none"}
        case "required":
            choice = {"type": "any"}
        case NamedToolChoice(function=function):
            choice = {"type": "tool", "name": function.name}
        case _:
            choice = {"type": "auto"} if request.parallel_tool_calls is False else None
    if choice is not None and request.parallel_tool_calls is False and choice["type"] != "none":
        choice["disable_parallel_tool_use"] = True
    return {"tools": [_tool(tool.function) for tool in request.tools], "tool_choice": choice}


def _tool(function: FunctionDefinition) -> dict[str, Any]:
    tool = {
        "name": function.name,
        "description": function.description,
        "input_schema": function.parameters or {"type": "object", "properties": {}},
        "strict": function.strict or None,
    }
    return {key: value for key, value in tool.items() if value is not None}


def _schema(request: ChatRequest) -> JsonObject | None:
    """The schema that this API itself can hold an answer to; None where it has to be asked for in words."""
    wanted = request.response_format
    return natively(wanted.json_schema.schema_) if isinstance(wanted, JsonSchemaFormat) else None


def _output(request: ChatRequest) -> dict[str, Any]:
    """What is asked of the form of an answer, and of the thinking before it."""
    output: dict[str, Any] = {}
    if (schema := _schema(request)) is not None:
        output["format"] = {"type": "json_schema", "schema": schema}
    thinking: dict[str, Any] | None = None
    if request.reasoning_effort == "none":
        thinking = {"type": "disabled"}
    elif request.reasoning_effort is not None:
        thinking = {"type": "adaptive", "display": "summarized"}
        output["effort"] = _EFFORT.get(request.reasoning_effort, request.reasoning_effort)
    return {"thinking": thinking, "output_config": output or None}


def _param_of(reason: str) -> str | None:
    """Which of the caller's fields a refusal is about: it begins with a path of this API's own."""
    path = reason.partition(":")[0]
    return next((param for own, param in _PARAMS.items() if path.startswith(own)), None)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _created(created_at: object) -> int:
    try:
        return int(datetime.fromisoformat(str(created_at)).timestamp())
    except ValueError:
        return 0
