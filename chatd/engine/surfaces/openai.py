"""`/v1/chat/completions` in OpenAI's words: in one piece, or in chunks."""

from dataclasses import dataclass
from typing import Any, Final

import orjson

from chatd.backends import Completion, Delta, ToolCallDelta
from chatd.backends.provider import UNKNOWN_USAGE
from chatd.engine.surfaces.common import CACHED, REASONING, Heading, count_at, dumped_calls, event
from schemas.base import JsonObject
from schemas.runs import Usage
from services.errors import PlatformError

DONE: Final = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class ChatSurface:
    """`with_usage`: whether the chunks of a stream shall end with one that tells the tokens."""

    with_usage: bool = False

    def whole(self, heading: Heading, completion: Completion) -> bytes:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": completion.content,
            "refusal": completion.refusal,
        }
        if completion.reasoning is not None:
            message["reasoning"] = completion.reasoning
        if completion.tool_calls:
            message["tool_calls"] = dumped_calls(completion.tool_calls)
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": completion.finish_reason,
            "logprobs": completion.logprobs,
        }
        answer = {
            "id": f"chatcmpl-{heading.run_id}",
            "object": "chat.completion",
            "created": heading.created,
            "model": heading.model,
            "choices": [choice],
        }
        if (usage := counted(completion.usage, completion.raw_usage)) is not None:
            answer["usage"] = usage
        return orjson.dumps(answer)

    def writer(self, heading: Heading) -> "ChunkWriter":
        return ChunkWriter(heading, with_usage=self.with_usage)


def counted(usage: Usage, raw_usage: JsonObject | None) -> JsonObject | None:
    """The tokens; None where they were not counted. Details are there as far as the provider tells them."""
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    said: JsonObject = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
    if (cached := count_at(raw_usage, CACHED)) is not None:
        said["prompt_tokens_details"] = {"cached_tokens": cached}
    if (reasoning := count_at(raw_usage, REASONING)) is not None:
        said["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return said


class ChunkWriter:
    """The same id, time and model throughout, the role once, and the finish reason once."""

    def __init__(self, heading: Heading, *, with_usage: bool) -> None:
        self._head = (
            b'data: {"id":"chatcmpl-%b","object":"chat.completion.chunk","created":%d,"model":%b,'
            % (
                heading.run_id.encode(),
                heading.created,
                orjson.dumps(heading.model),
            )
        )
        self._tail = b',"usage":null}\n\n' if with_usage else b"}\n\n"
        self._text = self._head + b'"choices":[{"index":0,"delta":{"content":'
        self._text_end = b'},"finish_reason":null,"logprobs":null}]' + self._tail
        self._with_usage = with_usage
        self._role_sent = False

    def begin(self) -> bytes:
        return b""

    def delta(self, delta: Delta) -> bytes:
        plain = self._role_sent and not (
            delta.reasoning or delta.tool_calls or delta.refusal or delta.logprobs
        )
        if plain:  # nearly every chunk there is
            return b"".join((self._text, orjson.dumps(delta.content), self._text_end))
        return self._chunk(_said(delta), None, delta.logprobs)

    def end(self, delta: Delta) -> bytes:
        parts = [self.delta(delta)] if delta.has_content else []
        parts.append(self._chunk({}, delta.finish_reason, None))
        if self._with_usage and (known := counted(delta.usage or UNKNOWN_USAGE, delta.raw_usage)) is not None:
            parts += (self._head, b'"choices":[],"usage":', orjson.dumps(known), b"}\n\n")
        parts.append(DONE)
        return b"".join(parts)

    def broken(self, error: PlatformError, request_id: str | None) -> bytes:
        return event(error.envelope(request_id).model_dump())

    def _chunk(self, said: JsonObject, finish: str | None, logprobs: JsonObject | None) -> bytes:
        if not self._role_sent:
            self._role_sent = True
            said = {"role": "assistant", "content": "", **said}
        choice = {"index": 0, "delta": said, "finish_reason": finish, "logprobs": logprobs}
        return b"".join((self._head, b'"choices":[', orjson.dumps(choice), b"]", self._tail))


def _said(delta: Delta) -> JsonObject:
    said: JsonObject = {}
    if delta.content:
        said["content"] = delta.content
    if delta.reasoning:
        said["reasoning"] = delta.reasoning
    if delta.refusal:
        said["refusal"] = delta.refusal
    if delta.tool_calls:
        said["tool_calls"] = [_piece(piece) for piece in delta.tool_calls]
    return said


def _piece(piece: ToolCallDelta) -> JsonObject:
    """`id`, `type` and the name stand on a call's first piece alone."""
    function: JsonObject = {"arguments": piece.arguments}
    if piece.name is not None:
        function["name"] = piece.name
    said: JsonObject = {"index": piece.index, "function": function}
    if piece.id is not None:
        said |= {"id": piece.id, "type": "function"}
    if piece.extra is not None:
        said["extra_content"] = piece.extra
    return said
