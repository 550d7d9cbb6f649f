"""Ollama, or anything that speaks its API (modeld does)."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from embedd.backends.protocol import Computed, ItemsRefused, ModelInfo, checked
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
        answer = self._parse(*await self._transport.call("GET", "/api/tags"))
        return [
            ModelInfo(name=str(model["name"]), digest=str(model["digest"]))
            for model in answer.get("models") or ()
        ]

    async def embed(self, model: str, texts: Sequence[str], *, truncate: bool) -> Computed:
        body: dict[str, Any] = {
            "model": model,
            "input": list(texts),
            "truncate": truncate,
            "keep_alive": self._keep_alive,
        }
        if self._options:
            body["options"] = self._options
        answer = self._parse(*await self._transport.call("POST", "/api/embed", orjson.dumps(body)))
        vectors = checked(answer.get("embeddings"), len(texts))
        return Computed(vectors, int(answer.get("prompt_eval_count") or 0))

    async def ping(self) -> None:
        self._parse(*await self._transport.call("GET", "/api/version"))

    def _parse(self, status: int, body: bytes) -> dict[str, Any]:
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise UpstreamError(f"ollama answered {status} with a body that is not JSON") from None
        if not isinstance(answer, dict):
            raise UpstreamError(f"ollama answered {status} with JSON that is not an object")
        if status != 200 or "error" in answer:
            raise _failure(status, str(answer.get("error", "no reason given")))
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
    failure: PlatformError = UpstreamError(f"ollama answered {status}: {reason}")
    # NaN and a crash of the runner come as 400 for the whole list, and often one item provokes them.
    return ItemsRefused(failure) if status == 400 else failure
