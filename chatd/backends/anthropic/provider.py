"""Anthropic's Claude, by its own `/v1/messages`."""

from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final

from chatd.backends.anthropic.answers import Reading, deltas_of
from chatd.backends.anthropic.questions import body_of
from chatd.backends.conversation import declared, nameless
from chatd.backends.failures import NO_REASON, error_in, failure
from chatd.backends.provider import Completion, Delta, Gathered, Lack, ModelInfo, parse_object, refuse
from chatd.backends.upstream import Answer, Upstream
from schemas.base import JsonObject
from schemas.chat import ChatRequest
from services.errors import PlatformError

NO_SAMPLING_SINCE: Final = "2026-10-21"
"""From this version of the API on, `temperature` and `top_p` are refused, whatever their value."""

TEMPERATURE_MAX: Final = 1.0

_STATUS: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_PARAMS: Final = {
    "thinking": "reasoning_effort",
    "output_config.effort": "reasoning_effort",
    "output_config.format": "response_format",
    "max_tokens": "max_tokens",
    "messages": "messages",
    "tools": "tools",
    "system": "messages",
}


class AnthropicProvider:
    """Speaks `/v1/messages` and `/v1/models`.

    `tokens_max_default` is the limit of answers whose caller names none, as this API demands one.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        api_version: str = "2026-10-21",
        tokens_max_default: int = 16_384,
        lacks: Collection[str] = (),
    ) -> None:
        self._upstream = upstream
        self._api_version = api_version
        self._tokens_max_default = tokens_max_default
        self._lacks = lacks

    @property
    def name(self) -> str:
        return self._upstream.name

    @property
    def keys(self) -> int:
        return self._upstream.keys

    @property
    def config(self) -> JsonObject:
        return {
            "provider": self.name,
            "api": "anthropic",
            "base_url": self._upstream.base_url,
            "api_version": self._api_version,
            "tokens_max_default": self._tokens_max_default,
        }

    def retire(self) -> None:
        self._upstream.retire()

    def lacking(self, request: ChatRequest) -> tuple[Lack, ...]:
        none = "it has no such option"
        samples = self._api_version < NO_SAMPLING_SINCE
        refusals = {
            "n": ((request.n or 1) > 1, "one choice a call is supported"),
            "logprobs": (bool(request.logprobs), "it gives no log probabilities"),
            "top_logprobs": (bool(request.top_logprobs), "it gives no log probabilities"),
            "logit_bias": (bool(request.logit_bias), none),
            "seed": (request.seed is not None, none),
            "presence_penalty": (bool(request.presence_penalty), none),
            "frequency_penalty": (bool(request.frequency_penalty), none),
            "temperature": (
                request.temperature is not None and (not samples or request.temperature > TEMPERATURE_MAX),
                "it goes up to 1" if samples else f"version {self._api_version} of its API has none",
            ),
            "top_p": (
                request.top_p is not None and not samples,
                f"version {self._api_version} of its API has none",
            ),
        }
        lacks = [Lack(param, reason) for param, (refused, reason) in refusals.items() if refused]
        return (*lacks, *nameless(request), *declared(request, self._lacks))

    async def complete(self, request: ChatRequest, *, key: int = 0) -> Completion:
        body = self._body(request, stream=False)
        async with self._upstream.post("/v1/messages", body, key=key, headers=self._version()) as answer:
            said = await self._whole(answer)
        gathered = Gathered()
        for delta in deltas_of(self.name, said):
            gathered.add(delta)
        return gathered.completion()

    async def stream(self, request: ChatRequest, *, key: int = 0) -> AsyncGenerator[Delta, None]:
        body = self._body(request, stream=True)
        async with self._upstream.post("/v1/messages", body, key=key, headers=self._version()) as answer:
            if not answer.good:
                await self._whole(answer)
            reading = Reading(self.name)
            async with aclosing(answer.events()) as incoming:
                async for event in incoming:
                    delta = reading.read(self._checked(parse_object(self.name, event), 502, {}))
                    if delta is not None:
                        yield delta
                    if reading.stopped:
                        answer.said_all = True
                        break
            yield reading.end()

    async def models(self) -> list[ModelInfo]:
        answer, body = await self._upstream.get("/v1/models?limit=1000", headers=self._version())
        listed = self._parsed(answer, body).get("data")
        return [
            ModelInfo(str(item["id"]), _created(item.get("created_at")))
            for item in (listed if isinstance(listed, list) else ())
            if isinstance(item, dict) and "id" in item
        ]

    async def digest(self, model: str) -> str | None:  # noqa: ARG002 - this API has no digests
        return None

    # --- what goes out ----------------------------------------------------------------------

    def _version(self) -> list[tuple[bytes, bytes]]:
        return [(b"anthropic-version", self._api_version.encode())]

    def _body(self, request: ChatRequest, *, stream: bool) -> bytes:
        refuse(self.name, self.lacking(request))
        return body_of(self.name, request, stream=stream, tokens_max_default=self._tokens_max_default)

    # --- what comes back --------------------------------------------------------------------

    async def _whole(self, answer: Answer) -> JsonObject:
        return self._parsed(answer, await answer.body())

    def _parsed(self, answer: Answer, body: bytes) -> JsonObject:
        if answer.good:
            return self._checked(parse_object(self.name, body), 502, {})
        raise self._failure(answer.status, error_in(body), answer.headers)

    def _checked(self, said: JsonObject, status: int, headers: Mapping[str, str]) -> JsonObject:
        if (error := said.get("error")) or said.get("type") == "error":
            kind = error.get("type") if isinstance(error, dict) else None
            raise self._failure(_STATUS.get(str(kind), status), error, headers)
        return said

    def _failure(self, status: int, error: Any, headers: Mapping[str, str]) -> PlatformError:
        said = error if isinstance(error, dict) else {}
        reason = str(said.get("message") or NO_REASON)
        return failure(self.name, status, reason, headers, param=_param_of(reason))


def _param_of(reason: str) -> str | None:
    """Which of the caller's fields a refusal is about: it begins with a path of this API's own."""
    path = reason.partition(":")[0]
    return next((param for own, param in _PARAMS.items() if path.startswith(own)), None)


def _created(created_at: object) -> int:
    try:
        return int(datetime.fromisoformat(str(created_at)).timestamp())
    except ValueError:
        return 0
