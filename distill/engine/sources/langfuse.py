"""`langfuse`: observations as exported from its API, its tables or to blob storage (camel or snake case)."""

from typing import Any

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
    output_of,
    text_at,
    time_of,
    tools_of,
)


def read(row: Json) -> Turn:
    """Raises `Unreadable` for observations that are no generations."""
    key = text_at(row, "id")
    if key is None:
        raise Unreadable("record.no_id", "the observation has no `id`")
    if row.get("type") != "GENERATION":
        raise Unreadable("record.not_generation", "the observation is no generation")
    given = decoded(row.get("input"))
    inside = given if isinstance(given, dict) and "role" not in given else {}
    parameters = object_at(row, "modelParameters", "model_parameters")
    usage = object_at(row, "usageDetails", "usage_details", "usage")
    cost = object_at(row, "costDetails", "cost_details")
    name = text_at(row, "name")
    return Turn(
        key=key,
        messages=messages_of(inside.get("messages") if inside else given),
        tools=tools_of(inside.get("tools") or parameters.get("tools")),
        params={name: value for name, value in parameters.items() if name != "tools" and value is not None},
        model={
            "provider": PROVIDER_UNKNOWN,
            "name": text_at(row, "model", "providedModelName", "provided_model_name") or "unknown",
            "digest": None,
        },
        output=_output(row),
        task={"kind": name, "key": None} if name else None,
        ts=time_of(row.get("startTime", row.get("start_time"))),
        episode_id=text_at(row, "sessionId", "session_id", "traceId", "trace_id"),
        usage={
            "prompt_tokens": count_at(usage, "input", "prompt_tokens", "promptTokens"),
            "completion_tokens": count_at(usage, "output", "completion_tokens", "completionTokens"),
            "cost_usd": amount_at(cost, "total") or amount_at(row, "totalCost", "total_cost"),
        },
    )


def _output(row: Json) -> Json | None:
    """What came back: a text, a message, a completion, or nothing for an observation that failed."""
    value: Any = decoded(row.get("output"))
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1]
    if value is None or value in ("", [], {}):
        return None
    if isinstance(value, str):
        return {"content": value, "tool_calls": None, "finish_reason": None}
    if not isinstance(value, dict):
        raise Unreadable("record.no_answer", "`output` is neither a text nor a message")
    if (completion := completion_of(value)) is not None:
        return completion
    if "content" in value or "tool_calls" in value:
        return output_of(value)
    raise Unreadable("record.no_answer", "`output` is neither a text nor a message")
