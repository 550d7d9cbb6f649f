"""`/v1/messages` in Anthropic's words: its requests as ours, our answers as its messages and events."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

from chatd.backends import Completion, Delta, ToolCallDelta
from chatd.backends.provider import UNKNOWN_USAGE
from chatd.engine.surfaces.common import CACHED, REASONING, Heading, chat_request, count_at, named
from schemas.base import JsonObject
from schemas.chat import (
    ChatMessage,
    ChatRequest,
    FinishReason,
    FunctionCall,
    FunctionDefinition,
    ImagePart,
    ImageUrl,
    JsonSchemaFormat,
    JsonSchemaSpec,
    NamedFunction,
    NamedToolChoice,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
)
from schemas.messages import (
    Base64Source,
    ImageBlock,
    MessagesRequest,
    TextBlock,
    Thinking,
    ToolPreference,
    ToolResultBlock,
    ToolUseBlock,
    Turn,
)
from schemas.runs import Usage
from services.errors import InvalidRequest, PlatformError, UpstreamError

STOP_REASONS: Final[dict[FinishReason, str]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
ERROR_TYPES: Final = {
    "upstream_error": "api_error",
    "internal_error": "api_error",
    "unavailable_error": "overloaded_error",
    "conflict_error": "invalid_request_error",
}
"""Where Anthropic has another name for it than we have."""

THINKS_A_LITTLE: Final = 2048
THINKS_SOME: Final = 8192
"""Tokens of a thinking budget up to which the effort is low, and medium."""

FAILED_TOOL: Final = "The tool failed: "
"""Says of a tool's result what the protocol in between has no field for."""


# --- what is asked ----------------------------------------------------------------------------


def asked(request: MessagesRequest) -> ChatRequest:
    """The request in our words. Raises `InvalidRequest`, naming the field, for what they cannot say."""
    for param in ("container", "mcp_servers", "top_k"):
        if getattr(request, param) is not None:
            raise _unsupported(param)
    fields: dict[str, Any] = {
        "model": request.model,
        "messages": [*_system(request), *_messages(request.messages)],
        "max_completion_tokens": request.max_tokens,
        "stream": request.stream,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop": request.stop_sequences or None,
        "reasoning_effort": _effort(request),
        "user": request.metadata.user_id if request.metadata else None,
        "response_format": _format(request),
    }
    if request.tools:
        fields["tools"] = [
            Tool(
                type="function",
                function=FunctionDefinition(
                    name=tool.name,
                    description=tool.description,
                    parameters=tool.input_schema,
                    strict=tool.strict,
                ),
            )
            for tool in request.tools
        ]
    if (choice := request.tool_choice) is not None:
        fields["tool_choice"] = _choice(choice)
        if choice.disable_parallel_tool_use:
            fields["parallel_tool_calls"] = False
    return chat_request(fields, said_in="messages")


def _unsupported(param: str, what: str = "it") -> InvalidRequest:
    return InvalidRequest(
        f"`{param}`: {what} is not supported here", code="unsupported_parameter", param=param
    )


def _system(request: MessagesRequest) -> Iterator[ChatMessage]:
    if isinstance(request.system, str):
        yield ChatMessage(role="system", content=request.system)
    elif request.system:
        yield ChatMessage(role="system", content="\n\n".join(block.text for block in request.system))


def _messages(turns: list[Turn]) -> Iterator[ChatMessage]:
    for index, turn in enumerate(turns):
        if isinstance(turn.content, str):
            yield ChatMessage(role=turn.role, content=turn.content)
        elif turn.role == "assistant":
            yield _said(turn, f"messages.{index}")
        else:
            yield from _heard(turn, f"messages.{index}")


def _said(turn: Turn, where: str) -> ChatMessage:
    """An earlier answer. Thinking stays behind: no model but its own could make use of it."""
    texts: list[str] = []
    calls: list[ToolCall] = []
    for index, block in enumerate(turn.content):
        match block:
            case TextBlock():
                texts.append(block.text)
            case ToolUseBlock():
                arguments = orjson.dumps(block.input).decode()
                calls.append(
                    ToolCall(id=block.id, function=FunctionCall(name=block.name, arguments=arguments))
                )
            case ImageBlock() | ToolResultBlock():
                raise _unsupported(
                    f"{where}.content.{index}", f"a block of type {block.type} of an assistant"
                )
    return ChatMessage(role="assistant", content="".join(texts) or None, tool_calls=calls or None)


def _heard(turn: Turn, where: str) -> Iterator[ChatMessage]:
    """What a user says, in the order it is said: results of tools are messages of their own."""
    parts: list[TextPart | ImagePart] = []
    for index, block in enumerate(turn.content):
        match block:
            case TextBlock():
                parts.append(TextPart(type="text", text=block.text))
            case ImageBlock():
                parts.append(ImagePart(type="image_url", image_url=ImageUrl(url=_url(block))))
            case ToolResultBlock():
                if parts:
                    yield ChatMessage(role=turn.role, content=parts)
                    parts = []
                yield ChatMessage(role="tool", content=_result(block), tool_call_id=block.tool_use_id)
            case ToolUseBlock():
                raise _unsupported(f"{where}.content.{index}", f"a tool_use of a {turn.role}")
    if parts:
        yield ChatMessage(role=turn.role, content=parts)


def _url(block: ImageBlock) -> str:
    source = block.source
    if isinstance(source, Base64Source):
        return f"data:{source.media_type};base64,{source.data}"
    return source.url


def _result(block: ToolResultBlock) -> str:
    content = block.content
    text = content if isinstance(content, str) else "\n".join(part.text for part in content)
    return FAILED_TOOL + text if block.is_error else text


def _choice(choice: ToolPreference) -> ToolChoice:
    match choice.type:
        case "any":
            return "required"
        case "tool":
            if choice.name is None:
                raise InvalidRequest("`tool_choice` of type tool needs a `name`", param="tool_choice.name")
            return NamedToolChoice(type="function", function=NamedFunction(name=choice.name))
        case "auto":
            return "auto"
        case "none":
            return "none"


def _effort(request: MessagesRequest) -> str | None:
    if request.thinking is not None and request.thinking.type == "disabled":
        return "none"
    if request.output_config is not None and request.output_config.effort is not None:
        return request.output_config.effort
    return None if request.thinking is None else _effort_of(request.thinking)


def _effort_of(thinking: Thinking) -> str | None:
    budget = thinking.budget_tokens
    if thinking.type == "adaptive" or budget is None:
        return None
    if budget <= THINKS_A_LITTLE:
        return "low"
    return "medium" if budget <= THINKS_SOME else "high"


def _format(request: MessagesRequest) -> JsonSchemaFormat | None:
    if request.output_config is None or request.output_config.format is None:
        return None
    return JsonSchemaFormat(
        type="json_schema",
        json_schema=JsonSchemaSpec.model_validate({"schema": request.output_config.format.schema_}),
    )


# --- what is answered -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MessagesSurface:
    def whole(self, heading: Heading, completion: Completion) -> bytes:
        content: list[JsonObject] = []
        if completion.reasoning:
            content.append({"type": "thinking", "thinking": completion.reasoning, "signature": ""})
        if text := completion.content or completion.refusal:
            content.append({"type": "text", "text": text})
        for call in completion.tool_calls:
            arguments = _arguments(call.function.arguments)
            if arguments is not None:
                content.append(
                    {"type": "tool_use", "id": call.id, "name": call.function.name, "input": arguments}
                )
            elif completion.finish_reason != "length":  # one that was cut cannot be told here
                raise UpstreamError(
                    "the model called a tool with arguments that are no JSON object", code="upstream_invalid"
                )
        return orjson.dumps(
            _message(
                heading,
                content,
                _counted(completion.usage, completion.raw_usage),
                STOP_REASONS[completion.finish_reason],
            )
        )

    def writer(self, heading: Heading) -> "BlockWriter":
        return BlockWriter(heading)


def _message(
    heading: Heading, content: list[JsonObject], usage: JsonObject, stop_reason: str | None
) -> dict[str, Any]:
    return {
        "id": f"msg_{heading.run_id}",
        "type": "message",
        "role": "assistant",
        "model": heading.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": usage,
    }


def _arguments(text: str) -> JsonObject | None:
    if not text:
        return {}
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _counted(usage: Usage, raw_usage: JsonObject | None) -> JsonObject:
    """The tokens, null where they were not counted. What came from a cache is told apart from the input."""
    cached = count_at(raw_usage, CACHED)
    fresh = None if usage.prompt_tokens is None else max(usage.prompt_tokens - (cached or 0), 0)
    said: JsonObject = {"input_tokens": fresh, "output_tokens": usage.completion_tokens}
    if cached is not None:
        said["cache_read_input_tokens"] = cached
    if (thought := count_at(raw_usage, REASONING)) is not None:
        said["output_tokens_details"] = {"thinking_tokens": thought}
    return said


class BlockWriter:
    """Blocks one after the other, as Anthropic's clients need them: numbered, and never one within another.

    A tool call that begins while another is open waits until the end, since more of the first may come.
    """

    def __init__(self, heading: Heading) -> None:
        self._heading = heading
        self._index = -1
        self._open: str | int | None = None
        self._waiting: dict[str | int, list[tuple[JsonObject, JsonObject]]] = {}
        self._text_head = b""

    def begin(self) -> bytes:
        message = _message(self._heading, [], {"input_tokens": 0, "output_tokens": 0}, None)
        return named("message_start", {"type": "message_start", "message": message})

    def delta(self, delta: Delta) -> bytes:
        if self._open == "text" and not (delta.reasoning or delta.tool_calls or delta.refusal):
            return b"".join((self._text_head, orjson.dumps(delta.content), b"}}\n\n"))
        parts: list[bytes] = []
        if delta.reasoning:
            start: JsonObject = {"type": "thinking", "thinking": "", "signature": ""}
            piece: JsonObject = {"type": "thinking_delta", "thinking": delta.reasoning}
            self._put(parts, "thinking", start, piece)
        if text := delta.content + delta.refusal:
            self._put(parts, "text", {"type": "text", "text": ""}, {"type": "text_delta", "text": text})
        for call in delta.tool_calls:
            self._put_call(parts, call)
        return b"".join(parts)

    def _put_call(self, parts: list[bytes], call: ToolCallDelta) -> None:
        start: JsonObject = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        self._put(parts, call.index, start, {"type": "input_json_delta", "partial_json": call.arguments})

    def _put(self, parts: list[bytes], key: str | int, start: JsonObject, piece: JsonObject) -> None:
        if isinstance(self._open, int) and self._open != key:
            self._waiting.setdefault(key, []).append((start, piece))
            return
        if self._open != key:
            parts.append(self._close())
            parts.append(self._begin_block(key, start))
        parts.append(self._event("content_block_delta", {"delta": piece}))

    def _begin_block(self, key: str | int, start: JsonObject) -> bytes:
        self._open = key
        self._index += 1
        if key == "text":
            self._text_head = (
                b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
                b'"delta":{"type":"text_delta","text":' % self._index
            )
        return self._event("content_block_start", {"content_block": start})

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return self._event("content_block_stop", {})

    def _event(self, kind: str, data: JsonObject) -> bytes:
        return named(kind, {"type": kind, "index": self._index, **data})

    def end(self, delta: Delta) -> bytes:
        parts = [self.delta(delta)] if delta.has_content else []
        parts.append(self._close())
        for key, pieces in self._waiting.items():
            parts.append(self._begin_block(key, pieces[0][0]))
            parts += [self._event("content_block_delta", {"delta": piece}) for _, piece in pieces]
            parts.append(self._close())
        assert delta.finish_reason is not None
        told = {
            key: count
            for key, count in _counted(delta.usage or UNKNOWN_USAGE, delta.raw_usage).items()
            if count is not None
        }
        last = {
            "type": "message_delta",
            "delta": {"stop_reason": STOP_REASONS[delta.finish_reason], "stop_sequence": None},
            "usage": {"output_tokens": 0, **told},
        }
        parts += (named("message_delta", last), named("message_stop", {"type": "message_stop"}))
        return b"".join(parts)

    def broken(self, error: PlatformError, request_id: str | None) -> bytes:
        said = {"type": ERROR_TYPES.get(error.type, error.type), "message": error.message}
        return named("error", {"type": "error", "error": said, "request_id": request_id})
