"""What Anthropic answers, in OpenAI's words."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from chatd.backends.failures import invalid, truncated
from chatd.backends.provider import Delta, ToolCallDelta, call_id, count_in, text_in
from schemas.base import JsonObject
from schemas.chat import FinishReason
from schemas.runs import Usage

_FINISH: Final[Mapping[str, FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}


class Reading:
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
                self._count(object_in(event.get("message")).get("usage"))
                return self._counted()
            case "content_block_start":
                return self._begin(self._index(event), object_in(event.get("content_block")))
            case "content_block_delta":
                return self._piece(self._index(event), object_in(event.get("delta")))
            case "content_block_stop" if (index := self._index(event)) in self._silent:
                self._silent.discard(index)
                return Delta(tool_calls=(ToolCallDelta(self._calls[index], "{}"),))
            case "message_delta":
                self._finish = object_in(event.get("delta")).get("stop_reason") or self._finish
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
        self._usage.update({key: value for key, value in object_in(usage).items() if value is not None})

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


def deltas_of(provider: str, said: JsonObject) -> list[Delta]:
    """A whole message, as the deltas it would have come in."""
    content = said.get("content")
    if not isinstance(content, list):
        raise invalid(provider, "an answer without content")
    deltas: list[Delta] = []
    calls = 0
    for block in map(object_in, content):
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
    usage = object_in(said.get("usage"))
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


def object_in(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
