"""An OpenAI-compatible embedding server, by URL and key."""

import base64
import hashlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import orjson

from embedd.backends.protocol import Computed, ItemsRefused, ModelInfo, checked
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
        answer = self._parse(*await self._transport.call("GET", "/models"))
        return [self._info(str(model["id"])) for model in answer.get("data") or ()]

    def _info(self, model: str) -> ModelInfo:
        identity = f"{self._transport.base_url}\n{model}".encode()
        return ModelInfo(model, f"sha256:{hashlib.sha256(identity).hexdigest()}")

    async def embed(self, model: str, texts: Sequence[str], *, truncate: bool) -> Computed:
        if truncate:
            raise InvalidRequest("this provider cannot be asked to truncate", param="truncate")
        body = orjson.dumps({"model": model, "input": list(texts), "encoding_format": "base64"})
        answer = self._parse(*await self._transport.call("POST", "/embeddings", body))
        items = sorted(answer.get("data") or (), key=lambda item: item.get("index", -1))
        if [item.get("index") for item in items] != list(range(len(texts))):
            raise UpstreamError(
                f"openai answered {len(items)} vectors for {len(texts)} texts", code="bad_vectors"
            )
        vectors = checked([_vector(item.get("embedding")) for item in items], len(texts))
        return Computed(vectors, int((answer.get("usage") or {}).get("prompt_tokens") or 0))

    async def ping(self) -> None:
        self._parse(*await self._transport.call("GET", "/models"))

    def _parse(self, status: int, body: bytes) -> dict[str, Any]:
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise UpstreamError(f"openai answered {status} with a body that is not JSON") from None
        if not isinstance(answer, dict):
            raise UpstreamError(f"openai answered {status} with JSON that is not an object")
        if status != 200 or answer.get("error"):
            raise _failure(status, answer.get("error"))
        return answer


def _vector(value: Any) -> Any:
    """A list of numbers as it is; base64 as the float32 numbers in it."""
    if not isinstance(value, str):
        return value
    try:
        return np.frombuffer(base64.b64decode(value, validate=True), "<f4")
    except ValueError:
        raise UpstreamError("openai answered a vector that is not base64", code="bad_vectors") from None


def _failure(status: int, error: Any) -> Exception:
    reason = str(error.get("message") if isinstance(error, dict) else error)
    if status == 404:
        return NotFound(reason, code="model_not_found", param="model")
    if status == 429:
        return Overloaded(f"openai is busy: {reason}", code="upstream_busy")
    if status in ITEM_STATUSES:
        return ItemsRefused(InvalidRequest(reason))
    return UpstreamError(f"openai answered {status}: {reason}")
