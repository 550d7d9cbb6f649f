"""What every provider of chat models gives: whole answers, streams, a list of models, their digests."""

import re
import secrets
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import httpx
import orjson

from schemas.base import JsonObject
from schemas.chat import ChatRequest, FinishReason, FunctionCall, ToolCall
from schemas.runs import Usage
from services.errors import (
    InvalidRequest,
    NotFound,
    Overloaded,
    PlatformError,
    TooLarge,
    Unavailable,
    UpstreamError,
    UpstreamTimeout,
)
from services.telemetry import redact

RETRY_AFTER_MAX_S: Final = 60.0
REASON_CHARS_MAX: Final = 500
UNKNOWN_USAGE: Final = Usage()

_SECONDS = re.compile(r"\d{1,9}(?:\.\d{1,9})?")
_FINISH: Final[Mapping[str, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as its provider lists it; `name` without the provider. `created` is in Unix seconds."""

    name: str
    created: int = 0
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer."""

    content: str | None
    finish_reason: FinishReason
    usage: Usage = UNKNOWN_USAGE
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of the tool call `index`. `id` and `name` come with its first piece."""

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """What one event of a stream adds. The last one has `finish_reason`, and `usage` where it is known."""

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None

    @property
    def has_content(self) -> bool:
        return bool(self.content or self.reasoning or self.tool_calls)


class Provider(Protocol):
    """Models behind one API.

    A request names the model without the provider. What cannot be honoured is refused with
    `InvalidRequest` naming the parameter; a model that is not there is `NotFound`. Streams end with a
    delta that has a `finish_reason`, or raise; closing one cancels the upstream call, as does cancelling
    `complete`.
    """

    @property
    def name(self) -> str: ...

    @property
    def config(self) -> JsonObject:
        """What shapes this provider's answers, without secrets."""
        ...

    async def complete(self, request: ChatRequest) -> Completion: ...

    def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]: ...

    async def models(self) -> list[ModelInfo]: ...

    async def digest(self, model: str) -> str | None:
        """What stands behind a model's name now; None where the provider does not say."""
        ...


@dataclass(slots=True)
class Gathered:
    """The deltas of one stream so far, put together."""

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    usage: Usage = UNKNOWN_USAGE
    _calls: dict[int, tuple[str, str, list[str]]] = field(default_factory=dict)

    def add(self, delta: Delta) -> None:
        self.content.append(delta.content)
        self.reasoning.append(delta.reasoning)
        for piece in delta.tool_calls:
            call = self._calls.setdefault(piece.index, (piece.id or call_id(None), piece.name or "", []))
            call[2].append(piece.arguments)
        self.finish_reason = delta.finish_reason or self.finish_reason
        self.usage = delta.usage or self.usage

    @property
    def text(self) -> str | None:
        return "".join(self.content) or None

    @property
    def thoughts(self) -> str | None:
        return "".join(self.reasoning) or None

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(
            ToolCall(id=id_, function=FunctionCall(name=name, arguments="".join(arguments)))
            for _, (id_, name, arguments) in sorted(self._calls.items())
        )

    def completion(self) -> Completion:
        """The whole answer. Only for a stream that has ended."""
        assert self.finish_reason is not None
        return Completion(self.text, self.finish_reason, self.usage, self.tool_calls, reasoning=self.thoughts)


def call_id(offered: str | None) -> str:
    """The provider's id of a tool call where it has the usual form, or a new one."""
    if offered is not None and offered.startswith("call_"):
        return offered
    return f"call_{secrets.token_hex(12)}"


def finish_reason(said: object, *, with_tool_calls: bool) -> FinishReason:
    """The reason in OpenAI's words. Providers that say `stop` after tool calls mean `tool_calls`."""
    reason = _FINISH.get(said, "stop") if isinstance(said, str) else "stop"
    return "tool_calls" if with_tool_calls and reason == "stop" else reason


def truncated(provider: str) -> UpstreamError:
    return UpstreamError(f"{provider} ended its stream before the answer was finished", code="truncated")


def upstream_failure(
    provider: str, status: int, reason: str, headers: Mapping[str, str], *, param: str | None = None
) -> PlatformError:
    """What a provider's refusal means to our caller, whose credentials it never concerns."""
    reason = redact(reason)[:REASON_CHARS_MAX]
    said = f"{provider} answered {status}: {reason}"
    retry_after_s = _retry_after(headers.get("retry-after", ""))
    match status:
        case 400 | 422:
            failure: PlatformError = InvalidRequest(reason, code="upstream_refused", param=param)
        case 401 | 402 | 403:
            failure = UpstreamError(
                f"{provider} refused the credentials it was given ({status})", code="upstream_credentials"
            )
        case 404:
            failure = NotFound(reason, code="model_not_found", param="model")
        case 408 | 504:
            failure = UpstreamTimeout(said)
        case 413:
            failure = TooLarge(said)
        case 429:
            failure = Overloaded(said, code="upstream_rate_limited", retry_after_s=retry_after_s)
        case 503:
            failure = Unavailable(said, code=f"{provider}_busy", retry_after_s=retry_after_s)
        case _:
            failure = UpstreamError(said)
    return failure


def _retry_after(value: str) -> float | None:
    if not _SECONDS.fullmatch(value.strip()):
        return None
    return min(float(value), RETRY_AFTER_MAX_S)


async def read_bounded(provider: str, response: httpx.Response, bytes_max: int) -> bytes:
    """The whole body, as long as it is not larger than `bytes_max`."""
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > bytes_max:
            raise _too_long(provider, "answer", bytes_max)
    return bytes(body)


async def lines(
    provider: str, response: httpx.Response, *, line_bytes_max: int, bytes_max: int
) -> AsyncGenerator[bytes, None]:
    """The lines of a stream, cut at the line feed byte alone: text splitters also cut inside JSON strings."""
    pending = b""
    total = 0
    async for piece in response.aiter_bytes():
        total += len(piece)
        if total > bytes_max:
            raise _too_long(provider, "stream", bytes_max)
        *whole, pending = (pending + piece).split(b"\n")
        for line in whole:
            if len(line) > line_bytes_max:
                raise _too_long(provider, "line", line_bytes_max)
            yield line
        if len(pending) > line_bytes_max:
            raise _too_long(provider, "line", line_bytes_max)
    if pending:
        yield pending


def _too_long(provider: str, what: str, bytes_max: int) -> UpstreamError:
    return UpstreamError(
        f"{provider} sent a {what} of more than {bytes_max} bytes", code="upstream_answer_too_large"
    )


def text_in(provider: str, value: object) -> str:
    """A text of an answer; null counts as empty. Raises `UpstreamError` for anything else."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UpstreamError(f"{provider} sent a text that is not a string", code="upstream_invalid")
    return value


def count_in(value: object) -> int | None:
    """A number of tokens; None for what is none."""
    return value if type(value) is int and value >= 0 else None


def parse_object(provider: str, body: bytes) -> JsonObject:
    """A JSON object from a provider. Raises `UpstreamError` for anything else."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UpstreamError(f"{provider} sent something that is not JSON", code="upstream_invalid") from None
    if not isinstance(value, dict):
        raise UpstreamError(f"{provider} sent JSON that is not an object", code="upstream_invalid")
    return value
