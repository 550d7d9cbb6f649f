"""What every provider of chat models gives: whole answers, streams, a list of models, their digests."""

import secrets
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import orjson
from pydantic import JsonValue

from schemas.base import JsonObject
from schemas.chat import ChatRequest, FinishReason, FunctionCall, ToolCall
from schemas.runs import Usage
from services.errors import InvalidRequest, UpstreamError

UNKNOWN_USAGE: Final = Usage()

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
    """A whole answer. `raw_usage` is the provider's own count, `logprobs` in OpenAI's form."""

    content: str | None
    finish_reason: FinishReason
    usage: Usage = UNKNOWN_USAGE
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    refusal: str | None = None
    raw_usage: JsonObject | None = None
    logprobs: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of the tool call `index`. `id` and `name` come with its first piece, `extra` with any."""

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None
    extra: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """What one event of a stream adds. The last one has `finish_reason`, and `usage` where it is known.

    Usage may come earlier as well, as far as it is known then: each one replaces those before it.
    """

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    refusal: str = ""
    raw_usage: JsonObject | None = None
    logprobs: JsonObject | None = None

    @property
    def has_content(self) -> bool:
        return bool(self.content or self.reasoning or self.tool_calls or self.refusal)

    @property
    def text_bytes(self) -> int:
        """What is said, in UTF-8."""
        size = len(self.content.encode()) + len(self.reasoning.encode()) + len(self.refusal.encode())
        return size + sum(len(call.arguments.encode()) for call in self.tool_calls)


@dataclass(frozen=True, slots=True)
class Lack:
    """A field of a request that a provider cannot honour, as a dotted path, and why.

    One that is not `droppable` carries what the conversation is about.
    """

    param: str
    reason: str
    droppable: bool = True


class Provider(Protocol):
    """Models behind one API.

    A request names the model without the provider. What cannot be honoured is refused with
    `InvalidRequest` naming the parameter; a model that is not there is `NotFound`. Streams end with a
    delta that has a `finish_reason`, or raise; closing one cancels the upstream call, as does cancelling
    `complete`. `key` is the place of the key to use among the provider's own.
    """

    @property
    def name(self) -> str: ...

    @property
    def keys(self) -> int:
        """How many keys it may be called with; at least 1, as no key counts as one."""
        ...

    @property
    def config(self) -> JsonObject:
        """What shapes this provider's answers, without secrets."""
        ...

    def lacking(self, request: ChatRequest) -> tuple[Lack, ...]:
        """What of a request it would refuse. Makes no call."""
        ...

    async def complete(self, request: ChatRequest, *, key: int = 0) -> Completion: ...

    def stream(self, request: ChatRequest, *, key: int = 0) -> AsyncGenerator[Delta, None]: ...

    async def models(self) -> list[ModelInfo]: ...

    async def digest(self, model: str) -> str | None:
        """What stands behind a model's name now; None where the provider does not say."""
        ...

    def retire(self) -> None:
        """Keep no connections from now on. Calls under way, and later ones, are served all the same."""
        ...


def without(request: ChatRequest, params: Iterable[str]) -> ChatRequest:
    """The request without fields that a provider lacks. `messages.N.name` is the only path below the top."""
    top: dict[str, object] = {}
    messages = list(request.messages)
    for param in params:
        head, _, rest = param.partition(".")
        if rest:
            index = int(rest.partition(".")[0])
            messages[index] = messages[index].model_copy(update={"name": None})
        else:
            top[head] = None
    return request.model_copy(update={**top, "messages": messages})


def refuse(provider: str, lacks: tuple[Lack, ...]) -> None:
    """Raise `InvalidRequest` for the first of them, if there is one."""
    if lacks:
        lack = lacks[0]
        raise InvalidRequest(
            f"`{lack.param}` as given cannot be honoured by {provider}: {lack.reason}",
            code="unsupported_parameter",
            param=lack.param,
        )


@dataclass(slots=True)
class Gathered:
    """The deltas of one stream so far, put together."""

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    usage: Usage = UNKNOWN_USAGE
    refusals: list[str] = field(default_factory=list)
    raw_usage: JsonObject | None = None
    _logprobs: dict[str, list[JsonValue]] = field(default_factory=dict)
    _calls: dict[int, tuple[str, str, list[str]]] = field(default_factory=dict)
    _extras: dict[int, JsonObject] = field(default_factory=dict)

    def add(self, delta: Delta) -> None:
        self.content.append(delta.content)
        self.reasoning.append(delta.reasoning)
        self.refusals.append(delta.refusal)
        for piece in delta.tool_calls:
            call = self._calls.setdefault(piece.index, (piece.id or call_id(None), piece.name or "", []))
            call[2].append(piece.arguments)
            if piece.extra is not None:
                self._extras[piece.index] = piece.extra
        for kind, tokens in (delta.logprobs or {}).items():
            if isinstance(tokens, list):
                self._logprobs.setdefault(kind, []).extend(tokens)
        self.finish_reason = delta.finish_reason or self.finish_reason
        self.usage = delta.usage or self.usage
        self.raw_usage = delta.raw_usage or self.raw_usage

    @property
    def text(self) -> str | None:
        return "".join(self.content) or None

    @property
    def thoughts(self) -> str | None:
        return "".join(self.reasoning) or None

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(
            ToolCall(
                id=id_,
                function=FunctionCall(name=name, arguments="".join(arguments)),
                extra_content=self._extras.get(index),
            )
            for index, (id_, name, arguments) in sorted(self._calls.items())
        )

    @property
    def logprobs(self) -> JsonObject | None:
        return dict(self._logprobs) or None

    def completion(self) -> Completion:
        """The whole answer. Only for a stream that has ended."""
        assert self.finish_reason is not None
        return Completion(
            self.text,
            self.finish_reason,
            self.usage,
            self.tool_calls,
            reasoning=self.thoughts,
            refusal="".join(self.refusals) or None,
            raw_usage=self.raw_usage,
            logprobs=self.logprobs,
        )


def pieces_of(calls: Iterable[ToolCall]) -> tuple[ToolCallDelta, ...]:
    """Whole tool calls as the pieces of a stream, one each."""
    return tuple(
        ToolCallDelta(
            index,
            call.function.arguments,
            id=call.id,
            name=call.function.name,
            extra=call.extra_content,
        )
        for index, call in enumerate(calls)
    )


def call_id(offered: str | None) -> str:
    """The provider's id of a tool call where it has the usual form, or a new one."""
    if offered is not None and offered.startswith("call_"):
        return offered
    return f"call_{secrets.token_hex(12)}"


def finish_reason(said: object, *, with_tool_calls: bool) -> FinishReason:
    """The reason in OpenAI's words. Providers that say `stop` after tool calls mean `tool_calls`."""
    reason = _FINISH.get(said, "stop") if isinstance(said, str) else "stop"
    return "tool_calls" if with_tool_calls and reason == "stop" else reason


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
