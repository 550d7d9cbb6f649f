"""Ollama, or anything that speaks its API (modeld does)."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

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
from services.errors import InvalidRequest, NotFound, Overloaded, PlatformError, UpstreamError

TOO_LONG: Final = ("exceeds the context length", "input length exceeds")


class OllamaBackend:
    """Speaks `/api/embed` and `/api/tags`.

    `options` is sent unchanged with every call, since Ollama loads a model anew when some of them differ.
    """

    kind = "ollama"
    pinned = False

    def __init__(self, transport: Transport, *, keep_alive: str, options: Mapping[str, Any]) -> None:
        self.name = f"ollama {transport.base_url}"
        self._transport = transport
        self._keep_alive = keep_alive
        self._options = dict(options)

    async def models(self) -> list[ModelInfo]:
        status, body = await self._transport.call("GET", "/api/tags")
        if status != 200:
            raise UpstreamError(f"ollama answered {status} when asked for its models")
        answer = _object(status, body)
        try:
            return [
                ModelInfo(name=str(model["name"]), digest=str(model["digest"]))
                for model in answer.get("models") or ()
            ]
        except (KeyError, TypeError):
            raise UpstreamError("ollama answered a list of models without names or digests") from None

    async def embed(self, model: str, texts: Sequence[str], *, truncate: bool) -> Computed:
        body: dict[str, Any] = {
            "model": model,
            "input": list(texts),
            "truncate": truncate,
            "keep_alive": self._keep_alive,
        }
        if self._options:
            body["options"] = self._options
        status, data = await self._transport.call("POST", "/api/embed", orjson.dumps(body))
        answer = _object(status, data)
        if status != 200 or "error" in answer:
            raise _failure(status, str(answer.get("error", "no reason given"))[:REASON_CHARS_MAX])
        vectors = checked(answer.get("embeddings"), len(texts))
        return Computed(vectors, whole(answer.get("prompt_eval_count")))


def _object(status: int, body: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:  # a NaN among the numbers does this too
        answer = None
    if not isinstance(answer, dict):
        kind = BadAnswer if status == 200 else UpstreamError
        raise kind(f"ollama answered {status} with something else than a JSON object")
    return answer


def _failure(status: int, reason: str) -> Exception:
    """Ollama answers 400 for its own faults too, so the text decides whether the caller is to blame."""
    if status == 404:
        return NotFound(reason, code="model_not_found", param="model")
    if status == 503:
        return Overloaded(f"ollama is busy: {reason}", code="upstream_busy")
    if any(stem in reason for stem in TOO_LONG):
        return ItemsRefused(InvalidRequest(reason, code="context_length_exceeded"))
    if "does not support" in reason:
        return InvalidRequest(reason, param="model")
    summary = f"ollama answered {status}"
    failure: PlatformError = UpstreamError(f"{summary}: {reason}", summary=summary)
    # NaN and a crash of the runner come in these ways for the whole list, and often one item provokes them.
    return ItemsRefused(failure) if status in (200, 400, 500) else failure
