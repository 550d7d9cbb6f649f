"""What the engine asks of a model, and what it offers: the two extension points of `modeld`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

Tokens = list[int]
Vectors = NDArray[np.float32]
Emit = Callable[[str], bool]
"""Takes a piece of the answer as it is made; returns True when nobody wants the rest."""


class Embedder(Protocol):
    """Turns texts into vectors. Called from several threads at once, never from the event loop."""

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text, special ones included, however many there are."""

    def truncate(self, tokens: Tokens, length: int) -> Tokens:
        """The tokens cut to `length`, still framed by the special ones."""

    def embed(self, batch: Sequence[Tokens]) -> Vectors:
        """One L2-normalised row for each item, in order."""

    def close(self) -> None:
        """Give the memory back. Nothing is called afterwards."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen and when to stop. The defaults are Ollama's.

    `seed` None takes a new one each time; `predict_max` None means as far as the context reaches.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_penalty: float = 1.1
    repeat_last_n: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    predict_max: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """How a generation ended, what it read and wrote, and how long both took (nanoseconds)."""

    finish: Literal["stop", "length"]
    prompt_tokens: int
    prompt_ns: int
    answer_tokens: int
    answer_ns: int


class ChatModel(Protocol):
    """Continues texts. Called from as many threads as it has slots, never from the event loop."""

    def render(self, messages: Sequence[Message]) -> str:
        """The conversation as the text that the model was trained to continue."""

    def generate(
        self, prompt: str, sampling: Sampling, schema: Mapping[str, JsonValue] | None, emit: Emit
    ) -> Report:
        """Emit the continuation piece by piece; with a schema, JSON that conforms to it.

        Returns early once `emit` returns True. Raises `ContextExceeded`, `FormatRefused` (before the first
        piece) and `GenerationFailed`.
        """

    def close(self) -> None:
        """Give the memory back. Nothing is called afterwards."""


@dataclass(frozen=True, slots=True)
class Card:
    """What is known about a model without loading it.

    `context_tokens` is what a call may use here; `info` holds Ollama's dotted keys.
    """

    name: str
    aliases: tuple[str, ...]
    capability: Literal["embedding", "completion"]
    digest: str
    file_format: str
    family: str
    parameter_size: str
    quantization: str
    context_tokens: int
    embedding_length: int
    info: Mapping[str, JsonValue]
    template: str = ""
    system: str = ""
    license: str = "Apache-2.0"


@dataclass(frozen=True, slots=True)
class Weights:
    """The files behind a model: their bytes and their age."""

    size: int
    modified_at: datetime


M_co = TypeVar("M_co", bound=Embedder | ChatModel, covariant=True)


@dataclass(frozen=True, slots=True)
class Offer(Generic[M_co]):
    """A model that can be had: `inspect` checks its files, `load` checks and opens them. Both block."""

    card: Card
    inspect: Callable[[], Weights]
    load: Callable[[], M_co]


@dataclass(frozen=True, slots=True)
class Shelf:
    """All models that this server knows."""

    embedders: tuple[Offer[Embedder], ...]
    chats: tuple[Offer[ChatModel], ...]
