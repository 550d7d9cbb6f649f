"""Our answers in the messages and events of `/v1/messages`."""

from dataclasses import dataclass
from typing import Any, Final

import orjson

from chatd.backends import Completion, Delta, ToolCallDelta
from chatd.backends.provider import UNKNOWN_USAGE
from chatd.engine.surfaces.common import CACHED, REASONING, Heading, count_at, named
from schemas.base import JsonObject
from schemas.chat import FinishReason
from schemas.runs import Usage
from services.errors import PlatformError, UpstreamError

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
