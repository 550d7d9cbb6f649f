"""Texts into vectors, by embedd, and only ever by the model that a collection was made with."""

import math
import re
import sys
from array import array
from collections.abc import Sequence
from typing import Final

from schemas.vectors import CollectionSpec
from services.clients import EmbeddClient
from services.errors import Conflict, InvalidRequest, NotFound, PlatformError, TooLarge, UpstreamError
from vectord.engine.disk import Manifest

PROBE: Final = "What does a vector of this model look like?"
PLACE: Final = re.compile(r"input\.(\d+)")

Vector = Sequence[float]


class Embedder:
    def __init__(self, embedd: EmbeddClient, *, batch_max: int) -> None:
        self._embedd = embedd
        self._batch_max = batch_max

    async def probe(self, model: str) -> tuple[int, str]:
        """The model's dimension and digest."""
        try:
            answer = await self._embedd.embed(model, [PROBE])
        except (InvalidRequest, NotFound) as error:
            raise _refused(error, "model") from error
        return len(_numbers(answer.vectors[0])), answer.model_digest

    async def embed(self, manifest: Manifest, texts: Sequence[str], params: Sequence[str]) -> list[Vector]:
        """A vector for each text. `params` name the fields they came from, for errors.

        Raises 409 `model_digest_mismatch` when the model is no longer the one that made the collection.
        """
        if not texts:
            return []
        assert manifest.spec.model is not None
        vectors: list[Vector] = []
        for start in range(0, len(texts), self._batch_max):
            batch = texts[start : start + self._batch_max]
            try:
                answer = await self._embedd.embed(manifest.spec.model, batch)
            except (InvalidRequest, NotFound, TooLarge) as error:
                place = PLACE.match(error.param or "")
                number = start + (int(place[1]) if place else 0)
                raise _refused(error, params[min(number, len(params) - 1)]) from error
            check_digest(manifest, answer.model_digest)
            vectors += map(_numbers, answer.vectors)
        if any(len(vector) != manifest.dimension or not math.isfinite(sum(vector)) for vector in vectors):
            raise UpstreamError(f"embedd did not answer {manifest.dimension} finite numbers for each text")
        return vectors


def check_digest(manifest: Manifest, digest: str) -> None:
    if digest != manifest.model_digest:
        raise Conflict(
            f"the collection was made with {manifest.spec.model!r} at digest {manifest.model_digest}, and"
            f" embedd now has it at {digest}: vectors of the two cannot be compared. Bring the old model"
            " back, or make a new collection and write the points again",
            code="model_digest_mismatch",
        )


def no_model(param: str) -> InvalidRequest:
    return InvalidRequest(
        "this collection was made without a model, so it needs `vector`",
        code="no_model",
        param=param,
    )


def model_of(spec: CollectionSpec, *, param: str) -> str:
    if spec.model is None:
        raise no_model(param)
    return spec.model


def _refused(error: PlatformError, param: str) -> InvalidRequest:
    return InvalidRequest(f"embedd refuses: {error.message}", code=error.code, param=param)


def _numbers(raw: bytes) -> Vector:
    """Little-endian float32 bytes as numbers."""
    numbers = array("f")
    numbers.frombytes(raw)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
