"""`openai`: chat JSONL. A row is a conversation, or a request with the completion that answered it."""

from collections.abc import Mapping
from typing import Any, Final

from distill.engine.sources.turn import (
    Json,
    Turn,
    Unreadable,
    completion_of,
    count_at,
    messages_of,
    object_at,
    output_of,
    text_at,
    time_of,
    tools_of,
)
from schemas.canonical import content_id

PARAMS: Final = frozenset(
    {
        "temperature", "top_p", "max_tokens", "max_completion_tokens", "n", "seed", "stop", "tool_choice",
        "parallel_tool_calls", "response_format", "presence_penalty", "frequency_penalty", "reasoning_effort",
    }
)  # fmt: skip


def read(row: Json) -> Turn:
    """Read `{"messages":[…, answer]}`, or `{"request":{…},"response":{…}}` with either part left flat.

    Raises `Unreadable`.
    """
    request = object_at(row, "request", "body") or row
    response = object_at(row, "response") or row
    response = object_at(response, "body") or response
    messages = messages_of(request.get("messages"))
    output = completion_of(response)
    if output is None:
        messages, output = _conversation(messages)
    usage = object_at(response, "usage")
    return Turn(
        key=text_at(response, "id") or text_at(row, "id", "custom_id") or content_id(row),
        messages=messages,
        tools=tools_of(request.get("tools")),
        params={name: value for name, value in request.items() if name in PARAMS and value is not None},
        model={
            "provider": "openai",
            "name": text_at(response, "model") or text_at(request, "model") or "unknown",
            "digest": text_at(response, "system_fingerprint"),
        },
        output=output,
        ts=time_of(response.get("created")),
        episode_id=_episode_of(row),
        usage={
            "prompt_tokens": count_at(usage, "prompt_tokens"),
            "completion_tokens": count_at(usage, "completion_tokens"),
            "cost_usd": None,
        },
    )


def _conversation(messages: list[Json]) -> tuple[list[Json], Json]:
    """Split a conversation into what was asked and the answer at its end."""
    last = messages[-1]
    if last["role"] != "assistant" or len(messages) < 2:
        raise Unreadable("record.no_answer", "the conversation does not end with an answer")
    return messages[:-1], output_of(last)


def _episode_of(row: Mapping[str, Any]) -> str | None:
    metadata = object_at(row, "metadata")
    return text_at(row, "episode_id") or text_at(metadata, "episode_id", "session_id")
