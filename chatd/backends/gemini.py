"""Google's Gemini, by its own `generateContent`."""

from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from typing import Any, Final
from urllib.parse import quote

import orjson

from chatd.backends.conversation import Image, arguments_of, called, declared, embedded, nameless
from chatd.backends.failures import CONTENT_POLICY, NO_REASON, error_in, failure, invalid, truncated
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
from chatd.backends.upstream import Answer, Upstream
from schemas.base import JsonObject
from schemas.chat import (
    ChatMessage,
    ChatRequest,
    FinishReason,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedToolChoice,
    TextPart,
    ToolCall,
)
from schemas.runs import Usage
from services.errors import InvalidRequest, PlatformError

_FINISH: Final[Mapping[str, FinishReason]] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
}
_EFFORT: Final = {"minimal": "low", "xhigh": "high", "max": "high"}
RETRY_INFO: Final = "type.googleapis.com/google.rpc.RetryInfo"
SIGNATURE: Final = "thought_signature"
"""As Google's own OpenAI route names it, in `extra_content.google` of a tool call."""


class GeminiProvider:
    """Speaks `/models/…:generateContent`, `:streamGenerateContent` and `/models`."""

    def __init__(self, upstream: Upstream, *, lacks: Collection[str] = ()) -> None:
        self._upstream = upstream
        self._lacks = lacks

    @property
    def name(self) -> str:
        return self._upstream.name

    @property
    def keys(self) -> int:
        return self._upstream.keys

    @property
    def config(self) -> JsonObject:
        return {"provider": self.name, "api": "gemini", "base_url": self._upstream.base_url}

    def retire(self) -> None:
        self._upstream.retire()

    def lacking(self, request: ChatRequest) -> tuple[Lack, ...]:
        refusals = {
            "n": ((request.n or 1) > 1, "one choice a call is supported"),
            "logprobs": (bool(request.logprobs), "its log probabilities are in another form"),
            "top_logprobs": (bool(request.top_logprobs), "its log probabilities are in another form"),
            "logit_bias": (bool(request.logit_bias), "it has no such option"),
            "parallel_tool_calls": (
                request.parallel_tool_calls is False and bool(request.tools),
                "it cannot be kept to one call",
            ),
        }
        lacks = [Lack(param, reason) for param, (refused, reason) in refusals.items() if refused]
        return (*lacks, *nameless(request), *declared(request, self._lacks))

    async def complete(self, request: ChatRequest, *, key: int = 0) -> Completion:
        body = self._body(request)
        reading, gathered = _Reading(self.name), Gathered()
        async with self._upstream.post(_target(request, "generateContent"), body, key=key) as answer:
            gathered.add(reading.read(await self._whole(answer)))
        gathered.add(reading.end())
        return gathered.completion()

    async def stream(self, request: ChatRequest, *, key: int = 0) -> AsyncGenerator[Delta, None]:
        body = self._body(request)
        target = _target(request, "streamGenerateContent?alt=sse")
        async with self._upstream.post(target, body, key=key) as answer:
            if not answer.good:
                await self._whole(answer)
            reading = _Reading(self.name)
            async with aclosing(answer.events()) as incoming:
                async for event in incoming:
                    delta = reading.read(self._checked(parse_object(self.name, event), 502, {}))
                    if delta.has_content or delta.usage is not None:
                        yield delta
            yield reading.end()

    async def models(self) -> list[ModelInfo]:
        answer, body = await self._upstream.get("/models?pageSize=1000")
        listed = self._parsed(answer, body).get("models")
        return [
            ModelInfo(str(item["name"]).removeprefix("models/"))
            for item in (listed if isinstance(listed, list) else ())
            if isinstance(item, dict) and "name" in item
        ]

    async def digest(self, model: str) -> str | None:  # noqa: ARG002 - this API has no digests
        return None

    # --- what goes out ----------------------------------------------------------------------

    def _body(self, request: ChatRequest) -> bytes:
        refuse(self.name, self.lacking(request))
        instructions = [
            {"text": text}
            for message in request.messages
            if message.role in ("system", "developer")
            for text in _texts(message)
        ]
        body: dict[str, Any] = {
            "contents": self._contents(request.messages),
            "generationConfig": _generation(request),
        }
        if instructions:
            body["systemInstruction"] = {"parts": instructions}
        if request.tools:
            body["tools"] = [
                {"functionDeclarations": [_declaration(tool.function) for tool in request.tools]}
            ]
            if (calling := _calling(request)) is not None:
                body["toolConfig"] = {"functionCallingConfig": calling}
        return orjson.dumps(body)

    def _contents(self, messages: list[ChatMessage]) -> list[dict[str, Any]]:
        """Turns of user and model. Results of tools that were called together belong into one turn."""
        names = called(messages)
        contents: list[dict[str, Any]] = []
        for index, message in enumerate(messages):
            if message.role in ("system", "developer"):
                continue
            role = "model" if message.role == "assistant" else "user"
            parts = (
                [_result(message, index, names)] if message.role == "tool" else self._parts(message, index)
            )
            if contents and contents[-1]["role"] == role:
                contents[-1]["parts"] += parts
            elif parts:
                contents.append({"role": role, "parts": parts})
        return contents

    def _parts(self, message: ChatMessage, index: int) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = []
        content = message.content if isinstance(message.content, list) else []
        if isinstance(message.content, str) and message.content:
            parts.append({"text": message.content})
        for position, part in enumerate(content):
            if isinstance(part, TextPart):
                parts.append({"text": part.text})
            else:
                url = part.image_url.url
                parts.append(
                    _inline(embedded(self.name, url, f"messages.{index}.content.{position}.image_url.url"))
                )
        return parts + [_call(call, index) for call in message.tool_calls or ()]

    # --- what comes back --------------------------------------------------------------------

    async def _whole(self, answer: Answer) -> JsonObject:
        return self._parsed(answer, await answer.body())

    def _parsed(self, answer: Answer, body: bytes) -> JsonObject:
        if answer.good:
            return self._checked(parse_object(self.name, body), 502, {})
        raise self._failure(answer.status, error_in(body), answer.headers)

    def _checked(self, said: JsonObject, status: int, headers: Mapping[str, str]) -> JsonObject:
        if error := said.get("error"):
            code = error.get("code") if isinstance(error, dict) else None
            inside = isinstance(code, int) and 400 <= code < 600
            raise self._failure(code if inside else status, error, headers)  # type: ignore[arg-type]  # an int
        return said

    def _failure(self, status: int, error: Any, headers: Mapping[str, str]) -> PlatformError:
        said = error if isinstance(error, dict) else {}
        reason = str(said.get("message") or NO_REASON)
        if status == 400 and ("API key not valid" in reason or "API key expired" in reason):
            status = 401
        return failure(self.name, status, reason, {**headers, **_retry_info(said)})


class _Reading:
    """One answer as it is read, whole or in pieces: both have the same form."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._calls = 0
        self._finish: str | None = None
        self._usage: Usage | None = None
        self._raw_usage: JsonObject | None = None

    def read(self, said: JsonObject) -> Delta:
        """What a piece adds. Usage comes with each; the finish is kept back for the end."""
        metadata = said.get("usageMetadata")
        if isinstance(metadata, dict):
            self._usage, self._raw_usage = _usage(metadata), metadata
        candidates = said.get("candidates")
        candidate = candidates[0] if isinstance(candidates, list) and candidates else None
        if not isinstance(candidate, dict):
            self._refuse_if_blocked(said)
            return Delta(usage=self._usage, raw_usage=self._raw_usage)
        if finish := candidate.get("finishReason"):
            self._finish = str(finish)
        content = candidate.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        texts: list[str] = []
        thoughts: list[str] = []
        calls: list[ToolCallDelta] = []
        for part in parts if isinstance(parts, list) else ():
            if not isinstance(part, dict):
                raise invalid(self._provider, "a malformed part")
            (thoughts if part.get("thought") is True else texts).append(
                text_in(self._provider, part.get("text"))
            )
            if "functionCall" in part:
                calls.append(self._call(part))
        return Delta(
            content="".join(texts),
            reasoning="".join(thoughts),
            tool_calls=tuple(calls),
            usage=self._usage,
            raw_usage=self._raw_usage,
        )

    def _refuse_if_blocked(self, said: JsonObject) -> None:
        feedback = said.get("promptFeedback")
        if isinstance(feedback, dict) and (reason := feedback.get("blockReason")):
            raise InvalidRequest(
                f"{self._provider} blocked the prompt: {str(reason)[:100]}",
                code=CONTENT_POLICY,
                param="messages",
            )

    def _call(self, part: dict[str, Any]) -> ToolCallDelta:
        call = part["functionCall"]
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            raise invalid(self._provider, "a tool call without a function")
        signature = part.get("thoughtSignature")
        extra: JsonObject | None = (
            {"google": {SIGNATURE: signature}} if isinstance(signature, str) and signature else None
        )
        offered = call.get("id")
        self._calls += 1
        return ToolCallDelta(
            self._calls - 1,
            orjson.dumps(call.get("args") or {}).decode(),
            id=call_id(offered if isinstance(offered, str) else None),
            name=call["name"],
            extra=extra,
        )

    def end(self) -> Delta:
        """The last delta. An answer without a reason for its end was cut."""
        if self._finish is None:
            raise truncated(self._provider)
        reason = _FINISH.get(self._finish)
        if reason is None:
            raise failure(self._provider, 502, f"the model stopped with {self._finish[:64]}", {})
        if self._calls and reason == "stop":
            reason = "tool_calls"
        return Delta(finish_reason=reason, usage=self._usage or Usage(), raw_usage=self._raw_usage)


def _target(request: ChatRequest, method: str) -> str:
    return f"/models/{quote(request.model, safe='')}:{method}"


def _generation(request: ChatRequest) -> dict[str, Any]:
    config: dict[str, Any] = {
        "temperature": request.temperature,
        "topP": request.top_p,
        "maxOutputTokens": request.tokens_max,
        "stopSequences": [request.stop] if isinstance(request.stop, str) else request.stop,
        "seed": request.seed,
        "presencePenalty": request.presence_penalty,
        "frequencyPenalty": request.frequency_penalty,
    }
    match request.response_format:
        case JsonSchemaFormat(json_schema=spec):
            config |= {"responseMimeType": "application/json", "responseJsonSchema": spec.schema_}
        case JsonObjectFormat():
            config["responseMimeType"] = "application/json"
    match request.reasoning_effort:
        case None:
            pass
        case "none":
            config["thinkingConfig"] = {"thinkingBudget": 0}
        case effort:
            config["thinkingConfig"] = {"thinkingLevel": _EFFORT.get(effort, effort), "includeThoughts": True}
    return {key: value for key, value in config.items() if value is not None}


def _declaration(function: Any) -> dict[str, Any]:
    declared_: dict[str, Any] = {"name": function.name}
    if function.description is not None:
        declared_["description"] = function.description
    if function.parameters:
        declared_["parametersJsonSchema"] = function.parameters
    return declared_


def _calling(request: ChatRequest) -> dict[str, Any] | None:
    match request.tool_choice:
        case "none":
            return {"mode": "NONE"}
        case "required":
            return {"mode": "ANY"}
        case NamedToolChoice(function=function):
            return {"mode": "ANY", "allowedFunctionNames": [function.name]}
    return None


def _texts(message: ChatMessage) -> list[str]:
    if isinstance(message.content, str):
        return [message.content]
    return [part.text for part in message.content or () if isinstance(part, TextPart)]


def _inline(image: Image) -> dict[str, Any]:
    return {"inlineData": {"mimeType": image.media_type, "data": image.data}}


def _call(call: ToolCall, index: int) -> dict[str, Any]:
    part: dict[str, Any] = {"functionCall": {"name": call.function.name, "args": arguments_of(call, index)}}
    google = (call.extra_content or {}).get("google")
    if isinstance(google, dict) and isinstance(signature := google.get(SIGNATURE), str):
        part["thoughtSignature"] = signature
    return part


def _result(message: ChatMessage, index: int, names: dict[str, str]) -> dict[str, Any]:
    """A tool's result, under the name of the tool: this format links results by it, and by their order."""
    name = names.get(message.tool_call_id or "")
    if name is None:
        raise InvalidRequest(
            f"no earlier message has the tool call {message.tool_call_id!r}",
            param=f"messages.{index}.tool_call_id",
        )
    text = "".join(_texts(message))
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = None
    return {
        "functionResponse": {"name": name, "response": value if isinstance(value, dict) else {"result": text}}
    }


def _usage(metadata: dict[str, Any]) -> Usage:
    """Thinking counts as output, as OpenAI counts it. Zeros are left out by this API."""
    prompt = count_in(metadata.get("promptTokenCount"))
    spoken, thought = (count_in(metadata.get(f"{kind}TokenCount")) for kind in ("candidates", "thoughts"))
    completion = None if spoken is None and thought is None else (spoken or 0) + (thought or 0)
    return Usage(prompt_tokens=prompt, completion_tokens=completion)


def _retry_info(error: dict[str, Any]) -> dict[str, str]:
    """The wait that a refusal for want of quota names in its details, such as `13s`."""
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and detail.get("@type") == RETRY_INFO:
            return {"retry-after": str(detail.get("retryDelay", "")).removesuffix("s")}
    return {}
