"""`litellm`: StandardLoggingPayload JSONL, as its proxy's log callbacks write it."""

from typing import Any, Final

from distill.engine.sources.turn import (
    PROVIDER_UNKNOWN,
    Json,
    Turn,
    Unreadable,
    amount_at,
    completion_of,
    count_at,
    decoded,
    messages_of,
    object_at,
    text_at,
    time_of,
    tools_of,
)

CALLS: Final = frozenset({"completion", "acompletion", "chat_completion", "achat_completion"})
REDACTED: Final = "redacted-by-litellm"
NOT_PARAMS: Final = frozenset({"tools", "functions", "messages", "user", "extra_body", "extra_headers"})


def read(row: Json) -> Turn:
    """Raises `Unreadable` for calls of another kind, and where texts were redacted."""
    key = text_at(row, "id", "litellm_call_id")
    if key is None:
        raise Unreadable("record.no_id", "the payload has no `id`")
    call_type = row.get("call_type", "completion")
    if not isinstance(call_type, str) or call_type not in CALLS:
        raise Unreadable("record.not_chat", "the call is no chat completion")
    messages = messages_of(row.get("messages"))
    output = _output(row)
    if any(REDACTED in str(message.get("content")) for message in messages) or (
        output is not None and output["content"] == REDACTED
    ):
        raise Unreadable("record.redacted", "litellm has left the texts out")
    parameters = object_at(row, "model_parameters")
    return Turn(
        key=key,
        messages=messages,
        tools=tools_of(parameters.get("tools")),
        params={
            name: value for name, value in parameters.items() if name not in NOT_PARAMS and value is not None
        },
        model={
            "provider": text_at(row, "custom_llm_provider") or PROVIDER_UNKNOWN,
            "name": text_at(row, "model", "model_group") or "unknown",
            "digest": None,
        },
        output=output,
        ts=time_of(row.get("startTime")),
        episode_id=text_at(row, "trace_id"),
        usage={
            "prompt_tokens": count_at(row, "prompt_tokens"),
            "completion_tokens": count_at(row, "completion_tokens"),
            "cost_usd": amount_at(row, "response_cost"),
        },
    )


def _output(row: Json) -> Json | None:
    """What came back, or None for a failed call."""
    if row.get("status") == "failure":
        return None
    response: Any = decoded(row.get("response"))
    if isinstance(response, str) and response:
        return {"content": response, "tool_calls": None, "finish_reason": None}
    output = completion_of(response)
    if output is None:
        raise Unreadable("record.no_answer", "`response` is no chat completion")
    return output
