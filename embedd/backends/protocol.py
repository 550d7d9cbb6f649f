"""What a backend is: something that computes embeddings of a model whose identity it knows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from services.errors import UpstreamError

NORM_TOLERANCE = 0.25
"""How far from 1 a norm may be. Loose, as quantised models are: it is to catch zeros and raw vectors."""

REASON_CHARS_MAX = 500
"""Of what a backend says of its failure."""

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


class ItemsRefused(Exception):
    """The backend refused a list because of something in it; which item, only smaller lists will tell.

    `cause` is what the caller is told when the list had one item.
    """

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class BadAnswer(UpstreamError):
    """The backend answered a call as if all were well, and what it answered cannot be used.

    One of the texts may have provoked it (a vector that is not finite), so smaller lists are worth a try.
    """

    code = "bad_vectors"


class Backend(Protocol):
    """One process that computes embeddings. `name` says which, in logs and readiness; `kind` is what it is.

    Backends of one kind with the same digest give the same vectors. Both calls raise `NotFound` for a model
    that is not there, `Unavailable` when the process is not, `Overloaded` when it is busy, and
    `UpstreamError` when it fails. `embed` raises `ItemsRefused` or `BadAnswer` when an item may be to blame.
    """

    name: str
    kind: str
    pinned: bool
    """Whether a model's digest can never change."""

    async def models(self) -> list[ModelInfo]: ...

    async def embed(self, model: str, texts: Sequence[str], *, truncate: bool) -> Computed: ...


def checked(vectors: Any, count: int) -> Vectors:
    """The vectors as an array, after the checks that no answer may skip: count, shape, finiteness, norm.

    Raises `BadAnswer`: such an answer is never cached.
    """
    try:
        array = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError):
        raise BadAnswer("the backend answered vectors of different lengths") from None
    if array.ndim != 2 or array.shape[0] != count or array.shape[1] == 0:
        raise BadAnswer(f"the backend answered vectors of shape {array.shape} for {count} texts")
    norms = np.linalg.norm(array, axis=1)
    if not np.all(np.abs(norms - 1.0) <= NORM_TOLERANCE):  # also false for NaN
        raise BadAnswer("the backend answered a vector that is not finite and normalised")
    return array


def whole(value: Any) -> int:
    """A count that a backend told, or 0 when it told none."""
    return value if isinstance(value, int) and value > 0 else 0
