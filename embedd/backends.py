"""What computes embeddings: Ollama (or anything that speaks its API), and a fake for tests."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
import numpy as np
import numpy.typing as npt
import orjson

from services.errors import InvalidRequest, NotFound, UpstreamError
from services.http import PeerClient

NORM_TOLERANCE = 0.25
"""How far from 1 a norm may be. Loose, as quantised models are: it is to catch zeros and raw vectors."""


Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as the backend has it now. `digest` changes when the model behind the name does."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Computed:
    """Vectors of shape (texts, dimension), L2-normalised float32, and the tokens that the call used."""

    vectors: Vectors
    prompt_tokens: int


class Backend(Protocol):
    """Computes embeddings. Raises `NotFound` for a model it does not have."""

    name: str

    async def models(self) -> list[ModelInfo]: ...

    async def embed(self, model: str, texts: Sequence[str]) -> Computed: ...

    async def ping(self) -> None: ...


def checked(vectors: Any, count: int) -> Vectors:
    """The vectors as an array, after the checks that no answer may skip: count, shape, finiteness, norm.

    Raises `UpstreamError`: such an answer is the backend's fault, and is never cached.
    """
    try:
        array = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError):
        raise UpstreamError("the backend answered vectors of different lengths", code="bad_vectors") from None
    if array.ndim != 2 or array.shape[0] != count or array.shape[1] == 0:
        raise UpstreamError(
            f"the backend answered vectors of shape {array.shape} for {count} texts", code="bad_vectors"
        )
    norms = np.linalg.norm(array, axis=1)
    if not np.all(np.abs(norms - 1.0) <= NORM_TOLERANCE):  # also false for NaN
        raise UpstreamError(
            "the backend answered a vector that is not finite and normalised", code="bad_vectors"
        )
    return array


class OllamaBackend:
    """Speaks `/api/embed` and `/api/tags`. Truncation is always off: half a text has no honest vector."""

    name = "ollama"

    def __init__(self, peer: PeerClient, *, keep_alive: str) -> None:
        self._peer = peer
        self._keep_alive = keep_alive

    async def models(self) -> list[ModelInfo]:
        answer = self._parse(await self._peer.send("GET", "/api/tags"))
        return [
            ModelInfo(name=str(model["name"]), digest=str(model["digest"]))
            for model in answer.get("models", ())
        ]

    async def embed(self, model: str, texts: Sequence[str]) -> Computed:
        body = {"model": model, "input": list(texts), "truncate": False, "keep_alive": self._keep_alive}
        response = await self._peer.send(
            "POST",
            "/api/embed",
            content=orjson.dumps(body),
            headers={"content-type": "application/json"},
            idempotent=True,
        )
        answer = self._parse(response)
        vectors = checked(answer.get("embeddings"), len(texts))
        return Computed(vectors, int(answer.get("prompt_eval_count", 0)))

    async def ping(self) -> None:
        self._parse(await self._peer.send("GET", "/api/version"))

    def _parse(self, response: httpx.Response) -> dict[str, Any]:
        try:
            answer = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            raise UpstreamError(
                f"ollama answered {response.status_code} with a body that is not JSON"
            ) from None
        if not isinstance(answer, dict):
            raise UpstreamError(f"ollama answered {response.status_code} with JSON that is not an object")
        if not response.is_success or "error" in answer:
            raise self._failure(response.status_code, str(answer.get("error", "no reason given")))
        return answer

    def _failure(self, status: int, reason: str) -> Exception:
        """Ollama answers 400 for its own faults too, so the text decides whether the caller is to blame."""
        if status == 404:
            return NotFound(reason, code="model_not_found", param="model")
        if "exceeds the context length" in reason or "input length exceeds" in reason:
            return InvalidRequest(reason, code="context_length_exceeded", param="input")
        if "does not support" in reason:
            return InvalidRequest(reason, param="model")
        return UpstreamError(f"ollama answered {status}: {reason}")


class FakeBackend:
    """Deterministic vectors without a model: the same text always gives the same unit vector.

    `calls` lists the texts of every call. A text containing `poison` makes its call fail.
    """

    name = "fake"

    def __init__(self, *, model: str = "fake", dimension: int = 8, digest: str = "sha256:0") -> None:
        self.model = model
        self.dimension = dimension
        self.digest = digest
        self.calls: list[list[str]] = []

    def vector(self, text: str) -> Vectors:
        seed = int.from_bytes(hashlib.sha256(f"{self.digest}|{text}".encode()).digest()[:8], "big")
        vector = np.random.default_rng(seed).standard_normal(self.dimension).astype(np.float32)
        normal: Vectors = vector / np.linalg.norm(vector)
        return normal

    async def models(self) -> list[ModelInfo]:
        return [ModelInfo(self.model, self.digest)]

    async def embed(self, model: str, texts: Sequence[str]) -> Computed:
        if model != self.model:
            raise NotFound(f"model '{model}' not found", code="model_not_found", param="model")
        self.calls.append(list(texts))
        if any("poison" in text for text in texts):
            raise UpstreamError("the fake backend was asked to fail")
        vectors = checked([self.vector(text) for text in texts], len(texts))
        return Computed(vectors, sum(len(text.split()) for text in texts))

    async def ping(self) -> None:
        return
