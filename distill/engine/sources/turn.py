"""What every source is read into: one call of a model, whoever recorded it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from schemas.base import SAFE_INTEGER_MAX

Json = dict[str, Any]

PROVIDER_UNKNOWN: Final = "unknown"


class Unreadable(Exception):
    """A line that is no call of a model. `code` names the reason, `detail` says it without its words."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Turn:
    """One call: what was asked, what came back, and what was known of it in its own record.

    `key` is its name in the source; `ts` is an RFC 3339 time; `output` is None when nothing came back;
    `repairs` is the key of the call that this one says it repairs.
    """

    key: str
    messages: list[Json]
    model: Json
    output: Json | None
    tools: list[Json] | None = None
    params: Json = field(default_factory=dict)
    context: list[Json] = field(default_factory=list)
    task: Json | None = None
    ts: str | None = None
    episode_id: str | None = None
    usage: Json | None = None
    latency_ms: float | None = None
    config_hash: str | None = None
    verdict: Json | None = None
    repairs: str | None = None


# --- what the adapters have in common -----------------------------------------------------------


def text_at(row: Mapping[str, Any], *names: str) -> str | None:
    """The first of these fields that is a text with something in it."""
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and value:
            return value
    return None


def object_at(row: Mapping[str, Any], *names: str) -> Json:
    """The first of these fields that is an object, as text if need be; otherwise an empty one."""
    for name in names:
        value = decoded(row.get(name))
        if isinstance(value, dict):
            return value
    return {}


def count_at(row: Mapping[str, Any], *names: str) -> int | None:
    """The first of these fields that is a whole number, and one that every reader can hold."""
    for name in names:
        value = row.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if 0 <= value <= SAFE_INTEGER_MAX and value == int(value):
            return int(value)
    return None


def amount_at(row: Mapping[str, Any], *names: str) -> float | None:
    """The first of these fields that is a number; exports write money as text at times."""
    for name in names:
        value = row.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, str):
            try:
                return float(value)
            except ValueError:
                continue
    return None


def decoded(value: Any) -> Any:
    """A value that may have been exported as its JSON text."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value


def messages_of(value: Any) -> list[Json]:
    """Messages from a list of them, or from one text. Raises `Unreadable`."""
    value = decoded(value)
    if isinstance(value, str) and value:
        return [{"role": "user", "content": value}]
    if isinstance(value, dict) and "role" in value:
        value = [value]
    if not isinstance(value, list) or not value:
        raise Unreadable("record.no_messages", "there are no messages to answer")
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Unreadable("record.message_invalid", "a message is not an object with a role")
    return value


def tools_of(value: Any) -> list[Json] | None:
    value = decoded(value)
    if not isinstance(value, list) or not value:
        return None
    if not all(isinstance(tool, dict) for tool in value):
        raise Unreadable("record.tools_invalid", "`tools` is not a list of objects")
    return value


def output_of(message: Mapping[str, Any], finish_reason: Any = None) -> Json:
    """The output in an assistant's message. A refusal is its text, with `refusal` as the finish reason."""
    content = text_of(message.get("content"))
    reason = finish_reason if isinstance(finish_reason, str) else None
    if content is None and (refusal := text_at(message, "refusal")) is not None:
        content, reason = refusal, "refusal"
    calls = message.get("tool_calls")
    return {
        "content": content,
        "tool_calls": calls if isinstance(calls, list) and calls else None,
        "finish_reason": reason,
    }


def completion_of(body: Any) -> Json | None:
    """The output in a chat completion (`{"choices":[{"message"}]}`), or None where there is none."""
    choices = body.get("choices") if isinstance(body, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    if not isinstance(message, dict):
        return None
    assert isinstance(first, dict)
    return output_of(message, first.get("finish_reason"))


def text_of(content: Any) -> str | None:
    """The text of a message's content: itself, or its parts of type text one after the other."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
    texts = [part for part in parts if isinstance(part, str)]
    return "".join(texts) if texts else None


def time_of(value: Any) -> str | None:
    """An RFC 3339 time from seconds since 1970, or from a text: UTC, and UTC if it names no zone."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _written(datetime.fromtimestamp(value, UTC))
        if isinstance(value, str) and value:
            when = datetime.fromisoformat(value)
            return _written(when if when.tzinfo else when.replace(tzinfo=UTC))
    except (ValueError, OverflowError, OSError):
        return None
    return None


def _written(when: datetime) -> str:
    return when.astimezone(UTC).isoformat().replace("+00:00", "Z")
