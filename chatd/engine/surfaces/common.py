"""What the surfaces share: an answer's heading, and how the words of one API are written for a caller."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson

from chatd.backends import Completion, Delta
from schemas.base import JsonObject
from schemas.chat import ChatRequest, ToolCall
from services.errors import InvalidRequest, PlatformError


@dataclass(frozen=True, slots=True)
class Heading:
    """What stands above every answer. `created` is in Unix seconds, `model` the id that was asked for."""

    run_id: str
    created: int
    model: str


class Writer(Protocol):
    """Writes one stream as server-sent events. Each method gives bytes to send, perhaps none."""

    def begin(self) -> bytes:
        """What stands before the first delta."""
        ...

    def delta(self, delta: Delta) -> bytes:
        """What a delta says. The last one, which has a `finish_reason`, is given to `end` instead."""
        ...

    def end(self, delta: Delta) -> bytes:
        """What the last delta says, and the end of a whole answer."""
        ...

    def broken(self, error: PlatformError, request_id: str | None) -> bytes:
        """The end of an answer that is not whole: one event with the error, and no other end."""
        ...


class Surface(Protocol):
    """One request in the words of one API, and how its answer is written."""

    def whole(self, heading: Heading, completion: Completion) -> bytes:
        """The answer in one piece, as JSON. Raises `UpstreamError` for one that the API has no words for."""
        ...

    def writer(self, heading: Heading) -> Writer: ...


def chat_request(fields: dict[str, Any], *, said_in: str) -> ChatRequest:
    """Our request of those fields that are given. Raises `InvalidRequest` when nothing is said in it."""
    if not fields["messages"]:
        raise InvalidRequest(f"`{said_in}` says nothing that a model could answer", param=said_in)
    return ChatRequest(**{key: value for key, value in fields.items() if value is not None})


def event(data: Any) -> bytes:
    """A server-sent event without a name."""
    return b"data: %b\n\n" % orjson.dumps(data)


def named(name: str, data: Any) -> bytes:
    """A server-sent event with a name, for the APIs whose clients skip those without."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))


def dumped_calls(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    return [call.model_dump(mode="json") for call in calls]


CACHED: Final = (
    ("prompt_tokens_details", "cached_tokens"),
    ("cache_read_input_tokens",),
    ("cachedContentTokenCount",),
)
CACHE_WRITES: Final = (("cache_creation_input_tokens",),)
REASONING: Final = (("completion_tokens_details", "reasoning_tokens"), ("thoughtsTokenCount",))
"""Where the providers tell of tokens from their caches, into them, and of those that were thought aloud."""


def count_at(raw_usage: JsonObject | None, places: Sequence[Sequence[str]]) -> int | None:
    """The first of several counts that a provider's own usage has."""
    if raw_usage is None:
        return None
    for place in places:
        value: Any = raw_usage
        for key in place:
            value = value.get(key) if isinstance(value, dict) else None
        if type(value) is int and value >= 0:
            return value
    return None
