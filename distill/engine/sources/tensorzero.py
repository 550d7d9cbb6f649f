"""`tensorzero`: rows of its table ChatInference, whose nested columns hold JSON as text."""

from typing import Any
from uuid import UUID

import orjson

from distill.engine.sources.turn import (
    Json,
    Turn,
    Unreadable,
    amount_at,
    decoded,
    object_at,
    text_at,
    time_of,
    tools_of,
)


def read(row: Json) -> Turn:
    """Raises `Unreadable`."""
    key = text_at(row, "id")
    if key is None:
        raise Unreadable("record.no_id", "the row has no `id`")
    given = object_at(row, "input")
    tool_params = object_at(row, "tool_params")
    return Turn(
        key=key,
        messages=_messages(given),
        tools=tools_of(tool_params.get("tools_available") or tool_params.get("available_tools")),
        params=object_at(object_at(row, "inference_params"), "chat_completion"),
        model={"provider": "tensorzero", "name": text_at(row, "variant_name") or "unknown", "digest": None},
        output=_output(decoded(row.get("output"))),
        task={"kind": name, "key": None} if (name := text_at(row, "function_name")) else None,
        ts=time_of(row.get("timestamp")) or _time_in(key),
        episode_id=text_at(row, "episode_id"),
        latency_ms=amount_at(row, "processing_time_ms"),
    )


def _messages(given: Json) -> list[Json]:
    messages: list[Json] = []
    if (system := given.get("system")) is not None:
        messages.append({"role": "system", "content": system if isinstance(system, str) else _json(system)})
    turns = given.get("messages")
    if not isinstance(turns, list) or not turns:
        raise Unreadable("record.no_messages", "`input` has no messages")
    for turn in turns:
        if not isinstance(turn, dict) or not isinstance(turn.get("role"), str):
            raise Unreadable("record.message_invalid", "a message is not an object with a role")
        messages += _said(turn["role"], turn.get("content"))
    return messages


def _said(role: str, content: Any) -> list[Json]:
    """The chat messages in one turn: its texts and calls together, each tool's result by itself."""
    blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
    results = [
        {"role": "tool", "tool_call_id": block.get("id"), "content": block.get("result")}
        for block in blocks
        if isinstance(block, dict) and block.get("type") == "tool_result"
    ]
    text, calls = _text_and_calls(blocks)
    if text is None and not calls:
        return results
    message: Json = {"role": role, "content": text}
    if calls:
        message["tool_calls"] = calls
    return [*results, message]


def _text_and_calls(blocks: list[Any]) -> tuple[str | None, list[Json]]:
    texts: list[str] = []
    calls: list[Json] = []
    for block in blocks:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind in ("text", "raw_text"):
            value = block.get("text", block.get("value", block.get("arguments")))
            texts.append(value if isinstance(value, str) else _json(value))
        elif kind == "tool_call":
            calls.append(_call(block))
        elif kind not in ("tool_result", "thought"):
            raise Unreadable("record.content_unknown", "a block of content is of a kind that is not known")
    return "\n".join(texts) if texts else None, calls


def _call(block: Json) -> Json:
    arguments = block.get("raw_arguments") or block.get("arguments")
    return {
        "id": block.get("id"),
        "type": "function",
        "function": {
            "name": block.get("raw_name") or block.get("name"),
            "arguments": arguments if isinstance(arguments, str) else _json(arguments),
        },
    }


def _output(blocks: Any) -> Json | None:
    if blocks in (None, "", []):
        return None
    if not isinstance(blocks, list):
        raise Unreadable("record.no_answer", "`output` is no list of content blocks")
    text, calls = _text_and_calls(blocks)
    return {"content": text, "tool_calls": calls or None, "finish_reason": None}


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _time_in(key: str) -> str | None:
    """The time in a UUIDv7, which is where the table's own column has it from."""
    try:
        number = UUID(key)
    except ValueError:
        return None
    return time_of((number.int >> 80) / 1000) if number.version == 7 else None
