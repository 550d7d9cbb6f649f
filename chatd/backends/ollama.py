"""Ollama, by its native API: OpenAI's request in its words, its answers and quirks in OpenAI's."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final

import httpx
import orjson

from chatd.backends.provider import (
    UNKNOWN_USAGE,
    Completion,
    Delta,
    Gathered,
    ModelInfo,
    ToolCallDelta,
    call_id,
    count_in,
    finish_reason,
    lines,
    parse_object,
    read_bounded,
    text_in,
    truncated,
    upstream_failure,
)
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
from services.errors import InvalidRequest, PlatformError, UpstreamError
from services.http import PeerClient

JSON_HEADERS: Final = {"content-type": "application/json"}
DIGEST_TTL_S: Final = 5.0


class OllamaProvider:
    """Speaks `/api/chat` and `/api/tags`.

    Truncation of the prompt is off, thinking off unless asked for, and both are said explicitly.
    """

    name = "ollama"

    def __init__(
        self, peer: PeerClient, *, keep_alive: str, line_bytes_max: int, answer_bytes_max: int
    ) -> None:
        self._peer = peer
        self._keep_alive = keep_alive
        self._line_bytes_max = line_bytes_max
        self._answer_bytes_max = answer_bytes_max
        self._digests: dict[str, str | None] = {}
        self._digests_until = 0.0

    @property
    def config(self) -> JsonObject:
        return {
            "provider": self.name,
            "api": "ollama",
            "base_url": str(httpx.URL(self._peer.base_url).copy_with(userinfo=b"")),
            "keep_alive": self._keep_alive,
            "truncate": False,
        }

    async def complete(self, request: ChatRequest) -> Completion:
        body = self._body(request, stream=False)
        async with self._send(body) as response:
            answer = await self._whole(response)
        if not answer.get("done"):
            raise truncated(self.name)
        gathered = Gathered()
        gathered.add(_delta(answer, calls_before=0))
        return gathered.completion()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        body = self._body(request, stream=True)
        calls = 0
        async with self._send(body) as response:
            if not response.is_success:
                await self._whole(response)
            incoming = lines(
                self.name, response, line_bytes_max=self._line_bytes_max, bytes_max=self._answer_bytes_max
            )
            async with aclosing(incoming):
                async for line in incoming:
                    if not line.strip():
                        continue
                    delta = _delta(self._checked(parse_object(self.name, line), 200, {}), calls_before=calls)
                    calls += len(delta.tool_calls)
                    yield delta
                    if delta.finish_reason is not None:
                        return
        raise truncated(self.name)

    async def models(self) -> list[ModelInfo]:
        response = await self._peer.send("GET", "/api/tags")
        answer = self._checked(
            parse_object(self.name, response.content), response.status_code, response.headers
        )
        listed = answer.get("models")
        models = (
            [_model(item) for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
        )
        self._digests = {model.name: model.digest for model in models}
        self._digests_until = time.monotonic() + DIGEST_TTL_S
        return models

    async def digest(self, model: str) -> str | None:
        if time.monotonic() >= self._digests_until:
            await self.models()
        return self._digests.get(model) or self._digests.get(f"{model}:latest")

    # --- what goes out ----------------------------------------------------------------------

    def _send(self, body: bytes) -> Any:
        # The caller's clocks decide how long a model may think, so no read timeout here.
        timeout = httpx.Timeout(None, connect=self._peer.timeouts.connect_s)
        return self._peer.stream("POST", "/api/chat", headers=JSON_HEADERS, content=body, timeout=timeout)

    def _body(self, request: ChatRequest, *, stream: bool) -> bytes:
        _refuse_what_ollama_lacks(request)
        body: dict[str, Any] = {
            "model": request.model,
            "messages": _messages(request.messages),
            "stream": stream,
            "think": _think(request.reasoning_effort),
            "truncate": False,
            "keep_alive": self._keep_alive,
            "options": _options(request),
        }
        if request.tools and request.tool_choice != "none":
            body["tools"] = [tool.model_dump(exclude_none=True) for tool in request.tools]
        match request.response_format:
            case JsonSchemaFormat(json_schema=spec):
                body["format"] = spec.schema_
            case JsonObjectFormat():
                body["format"] = "json"
        return orjson.dumps(body)

    # --- what comes back --------------------------------------------------------------------

    async def _whole(self, response: httpx.Response) -> JsonObject:
        body = await read_bounded(self.name, response, self._answer_bytes_max)
        if not response.is_success and not body.lstrip().startswith(b"{"):
            raise UpstreamError(f"{self.name} answered {response.status_code} with no JSON body")
        return self._checked(parse_object(self.name, body), response.status_code, response.headers)

    def _checked(self, answer: JsonObject, status: int, headers: Any) -> JsonObject:
        if status < 300 and not answer.get("error"):
            return answer
        raise self._failure(status, str(answer.get("error") or "no reason given"), headers)

    def _failure(self, status: int, reason: str, headers: Any) -> PlatformError:
        if status == 400:
            if "exceeds the context length" in reason or "exceed context" in reason:
                return InvalidRequest(reason, code="context_length_exceeded", param="messages")
            return upstream_failure(self.name, status, reason, headers, param=_param_of(reason))
        return upstream_failure(self.name, status, reason, headers)


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


def _refuse_what_ollama_lacks(request: ChatRequest) -> None:
    refusals = {
        "n": request.n is not None and request.n > 1,
        "logprobs": bool(request.logprobs),
        "top_logprobs": bool(request.top_logprobs),
        "logit_bias": bool(request.logit_bias),
        "tool_choice": request.tool_choice == "required" or isinstance(request.tool_choice, NamedToolChoice),
        "parallel_tool_calls": request.parallel_tool_calls is False and bool(request.tools),
    }
    for param, refused in refusals.items():
        if refused:
            raise InvalidRequest(
                f"`{param}` as given cannot be honoured by ollama; leave it out or choose another provider",
                code="unsupported_parameter",
                param=param,
            )


def _think(effort: str | None) -> bool | str:
    return effort if effort in ("low", "medium", "high") else False


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


def _messages(messages: list[ChatMessage]) -> list[dict[str, Any]]:
    names = {call.id: call.function.name for message in messages for call in message.tool_calls or ()}
    return [_message(message, index, names) for index, message in enumerate(messages)]


def _message(message: ChatMessage, index: int, names: dict[str, str]) -> dict[str, Any]:
    out: dict[str, Any] = {
        "role": "system" if message.role == "developer" else message.role,
        "content": message.content if isinstance(message.content, str) else _text(message),
    }
    if images := _images(message, index):
        out["images"] = images
    if message.tool_calls:
        out["tool_calls"] = [
            {"id": call.id, "function": {"name": call.function.name, "arguments": arguments}}
            for call in message.tool_calls
            for arguments in (_arguments(call.function.arguments, index),)
        ]
    if message.tool_call_id is not None:
        out["tool_call_id"] = message.tool_call_id
        if message.tool_call_id in names:
            out["tool_name"] = names[message.tool_call_id]
    return out


def _text(message: ChatMessage) -> str:
    parts = message.content if isinstance(message.content, list) else []
    return "\n".join(part.text for part in parts if isinstance(part, TextPart))


def _images(message: ChatMessage, index: int) -> list[str]:
    parts = message.content if isinstance(message.content, list) else []
    return [
        _image(part.image_url.url, f"messages.{index}.content.{position}.image_url.url")
        for position, part in enumerate(parts)
        if isinstance(part, ImagePart)
    ]


def _image(url: str, param: str) -> str:
    head, _, data = url.partition(",")
    if not (head.startswith("data:image/") and head.endswith(";base64") and data):
        raise InvalidRequest(
            "ollama takes images as base64 data URLs (data:image/png;base64,…) only", param=param
        )
    return data


def _arguments(text: str, index: int) -> dict[str, Any]:
    try:
        value = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise InvalidRequest(
            "the `arguments` of a tool call are not the JSON text of an object",
            param=f"messages.{index}.tool_calls",
        )
    return value


def _delta(answer: JsonObject, *, calls_before: int) -> Delta:
    """One object of `/api/chat`. `calls_before` tool calls came earlier in the same answer."""
    said = answer.get("message")
    message: dict[str, Any] = said if isinstance(said, dict) else {}
    calls = tuple(
        _tool_call(call, calls_before + index) for index, call in enumerate(message.get("tool_calls") or ())
    )
    done = bool(answer.get("done"))
    return Delta(
        content=text_in("ollama", message.get("content")),
        reasoning=text_in("ollama", message.get("thinking")),
        tool_calls=calls,
        finish_reason=finish_reason(answer.get("done_reason"), with_tool_calls=calls_before + len(calls) > 0)
        if done
        else None,
        usage=_usage(answer) if done else None,
    )


def _tool_call(call: Any, index: int) -> ToolCallDelta:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise UpstreamError("ollama sent a tool call without a function", code="upstream_invalid")
    arguments = function.get("arguments") or {}
    text = arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()
    return ToolCallDelta(index, text, id=call_id(text_in("ollama", call.get("id"))), name=function["name"])


def _usage(answer: JsonObject) -> Usage:
    """The counts of a finished answer. Ollama leaves zeros out, so one missing beside the other is zero."""
    prompt, completion = count_in(answer.get("prompt_eval_count")), count_in(answer.get("eval_count"))
    if prompt is None and completion is None:
        return UNKNOWN_USAGE
    return Usage(prompt_tokens=prompt or 0, completion_tokens=completion or 0)


def _model(item: dict[str, Any]) -> ModelInfo:
    name = item.get("name") or item.get("model")
    if not isinstance(name, str):
        raise UpstreamError("ollama listed a model without a name", code="upstream_invalid")
    digest = item.get("digest")
    return ModelInfo(name, _created(item.get("modified_at")), str(digest) if digest else None)


def _created(modified_at: object) -> int:
    try:
        return int(datetime.fromisoformat(str(modified_at)).timestamp())
    except ValueError:
        return 0
