"""An OpenAI-compatible embedding server, by URL and key."""

import base64
import hashlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import orjson

from embedd.backends.protocol import (
    REASON_CHARS_MAX,
    BadAnswer,
    Computed,
    ItemsRefused,
    ModelInfo,
    checked,
    whole,
)
from embedd.backends.transport import Transport
from services.errors import InvalidRequest, NotFound, Overloaded, UpstreamError

ITEM_STATUSES: Final = frozenset({400, 413, 422})


class OpenAIBackend:
    """Speaks `/v1/embeddings` and `/v1/models`.

    Such servers publish no digest, so a model's identity is the hash of the server's address and its name: a
    provider that changes a model under its name is not noticed.
    """

    kind = "openai"
    pinned = True

    def __init__(self, transport: Transport) -> None:
        self.name = f"openai {transport.base_url}"
        self._transport = transport

    async def models(self) -> list[ModelInfo]:
        status, body = await self._transport.call("GET", "/models")
        if status != 200:
            raise UpstreamError(f"openai answered {status} when asked for its models")
        answer = _object(status, body)
        try:
            return [self._info(str(model["id"])) for model in answer.get("data") or ()]
        except (KeyError, TypeError):
            raise UpstreamError("openai answered a list of models without ids") from None

    def _info(self, model: str) -> ModelInfo:
        identity = f"{self._transport.base_url}\n{model}".encode()
        return ModelInfo(model, f"sha256:{hashlib.sha256(identity).hexdigest()}")

    async def embed(self, model: str, texts: Sequence[str], *, truncate: bool) -> Computed:
        if truncate:
            raise InvalidRequest("this provider cannot be asked to truncate", param="truncate")
        body = orjson.dumps({"model": model, "input": list(texts), "encoding_format": "base64"})
        status, data = await self._transport.call("POST", "/embeddings", body)
        answer = _object(status, data)
        if status != 200 or answer.get("error"):
            raise _failure(status, answer.get("error"))
        usage = answer.get("usage")
        tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        return Computed(checked(_in_order(answer.get("data"), len(texts)), len(texts)), whole(tokens))


def _object(status: int, body: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if isinstance(answer, dict):
        return answer
    if status == 200:
        raise BadAnswer("openai answered with something else than a JSON object")
    return {"error": "no reason given"}


def _in_order(items: Any, count: int) -> list[Any]:
    """The vectors by their index."""
    found: dict[Any, Any] = {}
    if isinstance(items, list):
        found = {item.get("index"): item.get("embedding") for item in items if isinstance(item, dict)}
    if len(found) != count or set(found) != set(range(count)):
        raise BadAnswer(f"openai answered {len(found)} vectors for {count} texts")
    return [_vector(found[index]) for index in range(count)]


def _vector(value: Any) -> Any:
    """A list of numbers as it is; base64 as the float32 numbers in it."""
    if not isinstance(value, str):
        return value
    try:
        return np.frombuffer(base64.b64decode(value, validate=True), "<f4")
    except ValueError:
        raise BadAnswer("openai answered a vector that is not base64") from None


def _failure(status: int, error: Any) -> Exception:
    reason = str(error.get("message") if isinstance(error, dict) else error)[:REASON_CHARS_MAX]
    summary = f"openai answered {status}"
    if status == 404:
        return NotFound(reason, code="model_not_found", param="model")
    if status in (429, 503):
        return Overloaded(f"openai is busy: {reason}", code="upstream_busy")
    if status in ITEM_STATUSES:
        return ItemsRefused(InvalidRequest(reason))
    return UpstreamError(f"{summary}: {reason}", summary=summary)
