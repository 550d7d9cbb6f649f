"""A backend without a model, for tests: deterministic, and as faulty as it is told to be."""

import hashlib
from collections.abc import Sequence

import numpy as np

from embedd.backends.protocol import Computed, ItemsRefused, ModelInfo, Vectors, checked
from services.errors import InvalidRequest, NotFound, UpstreamError


class FakeBackend:
    """The same text always gives the same unit vector.

    `calls` lists the texts of every call. A text containing `poison` is refused, with its whole list, as a
    caller's mistake; one containing `crash` makes its list fail as Ollama's own fault.
    """

    kind = "ollama"
    pinned = False

    def __init__(
        self, *, name: str = "fake", model: str = "fake", dimension: int = 8, digest: str = "sha256:0"
    ) -> None:
        self.name = name
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

    async def embed(self, model: str, texts: Sequence[str], *, truncate: bool) -> Computed:  # noqa: ARG002 - a fake has no context to exceed
        if model != self.model:
            raise NotFound(f"model '{model}' not found", code="model_not_found", param="model")
        self.calls.append(list(texts))
        if any("poison" in text for text in texts):
            raise ItemsRefused(InvalidRequest("the input length exceeds the context length"))
        if any("crash" in text for text in texts):
            raise ItemsRefused(UpstreamError("ollama answered 400: EOF"))
        vectors = checked([self.vector(text) for text in texts], len(texts))
        return Computed(vectors, sum(len(text.split()) for text in texts))
