"""Our answers in the items and events of `/v1/responses`."""

from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from chatd.backends import Completion, Delta, ToolCallDelta
from chatd.backends.provider import UNKNOWN_USAGE
from chatd.engine.surfaces.common import CACHE_WRITES, CACHED, REASONING, Heading, count_at, named
from schemas.base import JsonObject
from schemas.chat import FinishReason
from schemas.responses import ResponsesRequest
from schemas.runs import Usage
from services.errors import PlatformError

INCOMPLETE: Final[dict[FinishReason, str]] = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
}


@dataclass(frozen=True, slots=True)
class ResponsesSurface:
    request: ResponsesRequest

    def whole(self, heading: Heading, completion: Completion) -> bytes:
        items = _Items(heading.run_id)
        if completion.reasoning:
            items.reasoning(completion.reasoning)
        if completion.content or completion.refusal or not completion.tool_calls:
            items.message(completion.content, completion.refusal, completion.logprobs)
        for call in completion.tool_calls:
            items.call(call.id, call.function.name, call.function.arguments)
        return orjson.dumps(
            response(
                self.request,
                heading,
                output=items.items,
                finish=completion.finish_reason,
                usage=counted(completion.usage, completion.raw_usage),
            )
        )

    def writer(self, heading: Heading) -> "ItemWriter":
        return ItemWriter(self.request, heading)


class _Items:
    """The items of a whole answer."""

    def __init__(self, run_id: str) -> None:
        self.items: list[JsonObject] = []
        self._run_id = run_id

    def _add(self, prefix: str, item: JsonObject) -> None:
        self.items.append({"id": f"{prefix}_{self._run_id}_{len(self.items)}", "status": "completed", **item})

    def reasoning(self, text: str) -> None:
        content: list[Any] = [{"type": "reasoning_text", "text": text}]
        self._add("rs", {"type": "reasoning", "summary": [], "content": content})

    def message(self, text: str | None, refusal: str | None, logprobs: JsonObject | None) -> None:
        content: list[Any] = []
        if text is not None or refusal is None:
            content.append(_text_part(text or "", logprobs))
        if refusal is not None:
            content.append({"type": "refusal", "refusal": refusal})
        self._add("msg", {"type": "message", "role": "assistant", "content": content})

    def call(self, call_id: str, name: str, arguments: str) -> None:
        self._add("fc", {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments})


def _text_part(text: str, logprobs: JsonObject | None = None) -> JsonObject:
    tokens = logprobs.get("content") if logprobs else None
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": tokens or []}


def response(
    request: ResponsesRequest,
    heading: Heading,
    *,
    output: list[JsonObject],
    finish: FinishReason | None = None,
    usage: JsonObject | None = None,
    error: JsonObject | None = None,
) -> JsonObject:
    """The object of a response. `finish` is None while it is not at its end."""
    reason = INCOMPLETE.get(finish) if finish else None
    status = "in_progress" if finish is None else "completed" if reason is None else "incomplete"
    echoed = request.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {
        "id": f"resp_{heading.run_id}",
        "object": "response",
        "created_at": heading.created,
        "status": "failed" if error else status,
        "background": False,
        "error": error,
        "incomplete_details": {"reason": reason} if reason else None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata or {},
        "model": heading.model,
        "output": [*output],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": request.reasoning.effort if request.reasoning else None, "summary": None},
        "store": False,
        "temperature": request.temperature,
        "text": echoed.get("text") or {"format": {"type": "text"}},
        "tool_choice": echoed.get("tool_choice", "auto"),
        "tools": [{"parameters": None, "strict": None, **tool} for tool in echoed.get("tools", ())],
        "top_p": request.top_p,
        "truncation": "disabled",
        "usage": usage,
        "user": request.user,
    }


def counted(usage: Usage, raw_usage: JsonObject | None) -> JsonObject | None:
    """The tokens; None where they were not counted."""
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": count_at(raw_usage, CACHED) or 0,
            "cache_write_tokens": count_at(raw_usage, CACHE_WRITES) or 0,
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": count_at(raw_usage, REASONING) or 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


@dataclass(slots=True)
class _Open:
    """An item under way: where it stands, what it is, and the text of it so far."""

    index: int
    item: JsonObject
    part: str | None = None
    text: list[str] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)

    @property
    def id(self) -> str:
        return str(self.item["id"])


class ItemWriter:
    """Items in the order in which they begin; each is ended before the response is."""

    def __init__(self, request: ResponsesRequest, heading: Heading) -> None:
        self._request = request
        self._heading = heading
        self._number = 0
        self._count = 0
        self._said: _Open | None = None  # the reasoning or message that is being said
        self._calls: dict[int, _Open] = {}
        self._done: dict[int, JsonObject] = {}

    def _event(self, kind: str, **data: Any) -> bytes:
        number = self._number
        self._number += 1
        return named(kind, {"type": kind, "sequence_number": number, **data})

    def begin(self) -> bytes:
        begun = response(self._request, self._heading, output=[])
        return self._event("response.created", response=begun) + self._event(
            "response.in_progress", response=begun
        )

    def delta(self, delta: Delta) -> bytes:
        parts: list[bytes] = []
        if delta.reasoning:
            self._say(parts, "reasoning_text", delta.reasoning, None)
        if delta.content:
            self._say(parts, "output_text", delta.content, delta.logprobs)
        if delta.refusal:
            self._say(parts, "refusal", delta.refusal, None)
        for piece in delta.tool_calls:
            self._call(parts, piece)
        return b"".join(parts)

    def _say(self, parts: list[bytes], part: str, text: str, logprobs: JsonObject | None) -> None:
        said = self._said
        if said is None or said.part != part:
            parts.append(self._end_said())
            said = self._begin_said(parts, part)
        said.text.append(text)
        data: JsonObject = {"item_id": said.id, "output_index": said.index, "content_index": 0, "delta": text}
        if part == "output_text":
            tokens: Any = (logprobs or {}).get("content") or []
            said.logprobs += tokens
            data["logprobs"] = tokens
        parts.append(self._event(f"response.{part}.delta", **data))

    def _begin_said(self, parts: list[bytes], part: str) -> _Open:
        if part == "reasoning_text":
            item: JsonObject = {"type": "reasoning", "summary": [], "content": []}
            said = self._begin_item(parts, "rs", item)
        else:
            said = self._begin_item(parts, "msg", {"type": "message", "role": "assistant", "content": []})
        said.part = part
        self._said = said
        parts.append(
            self._event(
                "response.content_part.added",
                item_id=said.id,
                output_index=said.index,
                content_index=0,
                part=_part(part, "", []),
            )
        )
        return said

    def _begin_item(self, parts: list[bytes], prefix: str, item: JsonObject) -> _Open:
        index = self._count
        self._count += 1
        head: JsonObject = {"id": f"{prefix}_{self._heading.run_id}_{index}", "status": "in_progress"}
        begun = _Open(index, {**head, **item})
        parts.append(self._event("response.output_item.added", output_index=index, item=begun.item))
        return begun

    def _end_said(self) -> bytes:
        said, self._said = self._said, None
        if said is None or said.part is None:
            return b""
        text = "".join(said.text)
        where = {"item_id": said.id, "output_index": said.index, "content_index": 0}
        key = "refusal" if said.part == "refusal" else "text"
        last: dict[str, Any] = {key: text}
        if said.part == "output_text":
            last["logprobs"] = said.logprobs
        part = _part(said.part, text, said.logprobs)
        return b"".join(
            (
                self._event(f"response.{said.part}.done", **where, **last),
                self._event("response.content_part.done", **where, part=part),
                self._end_item(said, {"content": [part]}),
            )
        )

    def _end_item(self, ended: _Open, said: JsonObject) -> bytes:
        item = {**ended.item, **said, "status": "completed"}
        self._done[ended.index] = item
        return self._event("response.output_item.done", output_index=ended.index, item=item)

    def _call(self, parts: list[bytes], piece: ToolCallDelta) -> None:
        call = self._calls.get(piece.index)
        if call is None:
            parts.append(self._end_said())
            item: JsonObject = {
                "type": "function_call",
                "call_id": piece.id,
                "name": piece.name,
                "arguments": "",
            }
            call = self._calls[piece.index] = self._begin_item(parts, "fc", item)
        if piece.arguments:
            call.text.append(piece.arguments)
            parts.append(
                self._event(
                    "response.function_call_arguments.delta",
                    item_id=call.id,
                    output_index=call.index,
                    delta=piece.arguments,
                )
            )

    def _end_call(self, call: _Open) -> bytes:
        arguments = "".join(call.text)
        told = self._event(
            "response.function_call_arguments.done",
            item_id=call.id,
            output_index=call.index,
            name=call.item["name"],
            arguments=arguments,
        )
        return told + self._end_item(call, {"arguments": arguments})

    def _end_items(self) -> list[bytes]:
        return [self._end_said(), *(self._end_call(call) for call in self._calls.values())]

    def end(self, delta: Delta) -> bytes:
        parts = [self.delta(delta)] if delta.has_content else []
        if not self._count:  # an answer of no words is a message all the same
            self._begin_said(parts, "output_text")
        parts += self._end_items()
        finish = delta.finish_reason
        assert finish is not None
        kind = "response.incomplete" if finish in INCOMPLETE else "response.completed"
        whole = response(
            self._request,
            self._heading,
            output=self._output(),
            finish=finish,
            usage=counted(delta.usage or UNKNOWN_USAGE, delta.raw_usage),
        )
        parts.append(self._event(kind, response=whole))
        return b"".join(parts)

    def _output(self) -> list[JsonObject]:
        return [self._done[index] for index in sorted(self._done)]

    def broken(self, error: PlatformError, request_id: str | None) -> bytes:
        """One event: flat, as the API has it, and with `error`, at which its clients raise."""
        nested = error.envelope(request_id).error.model_dump()
        return self._event("error", code=error.code, message=error.message, param=error.param, error=nested)


def _part(part: str, text: str, logprobs: list[Any]) -> JsonObject:
    match part:
        case "output_text":
            return _text_part(text, {"content": logprobs})
        case "refusal":
            return {"type": "refusal", "refusal": text}
        case _:
            return {"type": part, "text": text}
