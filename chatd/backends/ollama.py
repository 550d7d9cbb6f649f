"""Ollama, by its native API: OpenAI's request in its words, its answers and quirks in OpenAI's."""

import time
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final

import orjson

from chatd.backends.conversation import arguments_of, called, declared, embedded, nameless
from chatd.backends.failures import NO_REASON, error_in, failure, invalid, status_in, truncated
from chatd.backends.provider import (
    UNKNOWN_USAGE,
    Completion,
    Delta,
    Gathered,
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
    ImagePart,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedToolChoice,
    TextPart,
)
from schemas.runs import Usage
from services.errors import InvalidRequest, PlatformError

DIGEST_TTL_S: Final = 5.0


class OllamaProvider:
    """Speaks `/api/chat` and `/api/tags`, of a local server or, with a key, of the cloud.

    Truncation of the prompt is off, thinking off unless asked for, and both are said explicitly.
    """

    def __init__(self, upstream: Upstream, *, keep_alive: str = "30m", lacks: Collection[str] = ()) -> None:
        self._upstream = upstream
        self._keep_alive = keep_alive
        self._lacks = lacks
        self._digests: dict[str, str | None] = {}
        self._digests_until = 0.0

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
            "api": "ollama",
            "base_url": self._upstream.base_url,
            "keep_alive": self._keep_alive,
            "truncate": False,
        }

    def retire(self) -> None:
        self._upstream.retire()

    def lacking(self, request: ChatRequest) -> tuple[Lack, ...]:
        refusals = {
            "n": ((request.n or 1) > 1, "one choice a call is supported"),
            "logit_bias": (bool(request.logit_bias), "it has no such option"),
            "tool_choice": (
                request.tool_choice == "required" or isinstance(request.tool_choice, NamedToolChoice),
                "it cannot be made to call a tool",
            ),
            "parallel_tool_calls": (
                request.parallel_tool_calls is False and bool(request.tools),
                "it cannot be kept to one call",
            ),
        }
        lacks = [Lack(param, reason) for param, (refused, reason) in refusals.items() if refused]
        return (*lacks, *nameless(request), *declared(request, self._lacks))

    async def complete(self, request: ChatRequest, *, key: int = 0) -> Completion:
        body = self._body(request, stream=False)
        async with self._upstream.post("/api/chat", body, key=key) as answer:
            said = await self._whole(answer)
        if not said.get("done"):
            raise truncated(self.name)
        gathered = Gathered()
        gathered.add(self._delta(request, said, calls_before=0))
        return gathered.completion()

    async def stream(self, request: ChatRequest, *, key: int = 0) -> AsyncGenerator[Delta, None]:
        body = self._body(request, stream=True)
        calls = 0
        async with self._upstream.post("/api/chat", body, key=key) as answer:
            if not answer.good:
                await self._whole(answer)
            async with aclosing(answer.lines()) as incoming:
                async for line in incoming:
                    if not line.strip():
                        continue
                    said = self._checked(parse_object(self.name, line))
                    delta = self._delta(request, said, calls_before=calls)
                    calls += len(delta.tool_calls)
                    answer.said_all = delta.finish_reason is not None
                    yield delta
                    if delta.finish_reason is not None:
                        return
        raise truncated(self.name)

    async def models(self) -> list[ModelInfo]:
        answer, body = await self._upstream.get("/api/tags")
        listed = self._parsed(answer, body).get("models")
        models = (
            [_model(self.name, item) for item in listed if isinstance(item, dict)]
            if isinstance(listed, list)
            else []
        )
        self._digests = {model.name: model.digest for model in models}
        self._digests_until = time.monotonic() + DIGEST_TTL_S
        return models

    async def digest(self, model: str) -> str | None:
        if time.monotonic() >= self._digests_until:
            await self.models()
        return self._digests.get(model) or self._digests.get(f"{model}:latest")

    # --- what goes out ----------------------------------------------------------------------

    def _body(self, request: ChatRequest, *, stream: bool) -> bytes:
        refuse(self.name, self.lacking(request))
        body: dict[str, Any] = {
            "model": request.model,
            "messages": _messages(self.name, request.messages),
            "stream": stream,
            "think": _think(request.reasoning_effort),
            "truncate": False,
            "keep_alive": self._keep_alive,
            "options": _options(request),
        }
        if request.tools and request.tool_choice != "none":
            body["tools"] = [tool.model_dump(exclude_none=True) for tool in request.tools]
        if request.logprobs:
            body["logprobs"] = True
            body["top_logprobs"] = request.top_logprobs or 0
        match request.response_format:
            case JsonSchemaFormat(json_schema=spec):
                body["format"] = spec.schema_
            case JsonObjectFormat():
                body["format"] = "json"
        return orjson.dumps(body)

    # --- what comes back --------------------------------------------------------------------

    async def _whole(self, answer: Answer) -> JsonObject:
        return self._parsed(answer, await answer.body())

    def _parsed(self, answer: Answer, body: bytes) -> JsonObject:
        if answer.good:
            return self._checked(parse_object(self.name, body))
        raise self._failure(answer.status, error_in(body), answer.headers)

    def _checked(self, said: JsonObject) -> JsonObject:
        if error := said.get("error"):
            raise self._failure(status_in(error), error, {})
        return said

    def _failure(self, status: int, error: Any, headers: Mapping[str, str]) -> PlatformError:
        reason = str((error.get("message") if isinstance(error, dict) else error) or NO_REASON)
        return failure(self.name, status, reason, headers, param=_param_of(reason))

    def _delta(self, request: ChatRequest, said: JsonObject, *, calls_before: int) -> Delta:
        delta = _delta(self.name, said, calls_before=calls_before)
        if request.logprobs and (delta.content or delta.reasoning) and delta.logprobs is None:
            raise InvalidRequest(
                f"the server of {self.name} gives no log probabilities",
                code="unsupported_parameter",
                param="logprobs",
            )
        return delta


def _param_of(reason: str) -> str | None:
    """Which of the caller's parameters asked for a capability that the model lacks."""
    if "does not support" not in reason:
        return None
    lacking = reason.rsplit("does not support", 1)[1]
    if "tools" in lacking:
        return "tools"
    if "think" in lacking:
        return "reasoning_effort"
    return "model"


def _think(effort: str | None) -> bool | str:
    if effort in (None, "none"):
        return False
    return {"minimal": "low", "xhigh": "max"}.get(str(effort), str(effort))


def _options(request: ChatRequest) -> dict[str, Any]:
    options = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "num_predict": request.tokens_max,
        "stop": [request.stop] if isinstance(request.stop, str) else request.stop,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
    }
    return {key: value for key, value in options.items() if value is not None}


def _messages(provider: str, messages: list[ChatMessage]) -> list[dict[str, Any]]:
    names = called(messages)
    return [_message(provider, message, index, names) for index, message in enumerate(messages)]


def _message(provider: str, message: ChatMessage, index: int, names: dict[str, str]) -> dict[str, Any]:
    out: dict[str, Any] = {
        "role": "system" if message.role == "developer" else message.role,
        "content": message.content if isinstance(message.content, str) else _text(message),
    }
    if images := _images(provider, message, index):
        out["images"] = images
    if message.thoughts is not None:
        out["thinking"] = message.thoughts
    if message.tool_calls:
        out["tool_calls"] = [
            {"id": call.id, "function": {"name": call.function.name, "arguments": arguments}}
            for call in message.tool_calls
            for arguments in (arguments_of(call, index),)
        ]
    if message.tool_call_id is not None:
        out["tool_call_id"] = message.tool_call_id
        if message.tool_call_id in names:
            out["tool_name"] = names[message.tool_call_id]
    return out


def _text(message: ChatMessage) -> str:
    parts = message.content if isinstance(message.content, list) else []
    return "\n".join(part.text for part in parts if isinstance(part, TextPart))


def _images(provider: str, message: ChatMessage, index: int) -> list[str]:
    parts = message.content if isinstance(message.content, list) else []
    return [
        embedded(provider, part.image_url.url, f"messages.{index}.content.{position}.image_url.url").data
        for position, part in enumerate(parts)
        if isinstance(part, ImagePart)
    ]


def _delta(provider: str, answer: JsonObject, *, calls_before: int) -> Delta:
    """One object of `/api/chat`. `calls_before` tool calls came earlier in the same answer."""
    said = answer.get("message")
    message: dict[str, Any] = said if isinstance(said, dict) else {}
    calls = tuple(
        _tool_call(provider, call, calls_before + index)
        for index, call in enumerate(message.get("tool_calls") or ())
    )
    done = bool(answer.get("done"))
    return Delta(
        content=text_in(provider, message.get("content")),
        reasoning=text_in(provider, message.get("thinking")),
        tool_calls=calls,
        finish_reason=finish_reason(answer.get("done_reason"), with_tool_calls=calls_before + len(calls) > 0)
        if done
        else None,
        usage=_usage(answer) if done else None,
        raw_usage=_counts(answer) if done else None,
        logprobs={"content": logprobs} if isinstance(logprobs := answer.get("logprobs"), list) else None,
    )


def _counts(answer: JsonObject) -> JsonObject | None:
    """The fields of an answer that count or measure."""
    return {key: value for key, value in answer.items() if key.endswith(("_count", "_duration"))} or None


def _tool_call(provider: str, call: Any, index: int) -> ToolCallDelta:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise invalid(provider, "a tool call without a function")
    arguments = function.get("arguments") or {}
    text = arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()
    return ToolCallDelta(index, text, id=call_id(text_in(provider, call.get("id"))), name=function["name"])


def _usage(answer: JsonObject) -> Usage:
    """The counts of a finished answer. Ollama leaves zeros out, so one missing beside the other is zero."""
    prompt, completion = count_in(answer.get("prompt_eval_count")), count_in(answer.get("eval_count"))
    if prompt is None and completion is None:
        return UNKNOWN_USAGE
    return Usage(prompt_tokens=prompt or 0, completion_tokens=completion or 0)


def _model(provider: str, item: dict[str, Any]) -> ModelInfo:
    name = item.get("name") or item.get("model")
    if not isinstance(name, str):
        raise invalid(provider, "a list with a model without a name")
    digest = item.get("digest")
    return ModelInfo(name, _created(item.get("modified_at")), str(digest) if digest else None)


def _created(modified_at: object) -> int:
    try:
        return int(datetime.fromisoformat(str(modified_at)).timestamp())
    except ValueError:
        return 0
