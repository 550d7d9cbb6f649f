"""Models without weights, for tests of what is around them: deterministic, instant, honest about limits."""

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
from pydantic import JsonValue

from modeld.backends.errors import ContextExceeded
from modeld.backends.protocols import (
    Card,
    ChatModel,
    Emit,
    Message,
    Offer,
    Report,
    Sampling,
    Shelf,
    Tokens,
    Vectors,
    Weights,
)

DIMENSION = 8
CONTEXT_TOKENS = 16
PATIENCE_S = 30.0


class FakeEmbedder:
    """A token a word; the vector depends on the tokens alone. The word `nan` breaks it, as a fault would."""

    def __init__(self) -> None:
        self.closed = False

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        return [[1, *(_token(word) for word in text.split()), 2] for text in texts]

    def truncate(self, tokens: Tokens, length: int) -> Tokens:
        return tokens if len(tokens) <= length else [*tokens[: length - 1], tokens[-1]]

    def embed(self, batch: Sequence[Tokens]) -> Vectors:
        rows = np.ones((len(batch), DIMENSION), np.float32)
        for row, tokens in enumerate(batch):
            if _token("nan") in tokens:
                rows[row] = np.nan
            for token in tokens:
                rows[row, token % DIMENSION] += 1.0
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    def close(self) -> None:
        self.closed = True


class FakeChat:
    """Answers with the last user message, word by word, or with `{}` when a schema is given.

    `hold` makes it wait, in the middle of an answer, until `go` is set or nobody wants the rest.
    """

    def __init__(self, *, hold: bool = False) -> None:
        self.go = threading.Event()
        if not hold:
            self.go.set()
        self.running = 0
        self.stopped = 0
        self.closed = False

    def render(self, messages: Sequence[Message]) -> str:
        return messages[-1].content

    def generate(
        self, prompt: str, sampling: Sampling, schema: Mapping[str, JsonValue] | None, emit: Emit
    ) -> Report:
        words = prompt.split(" ") if schema is None else [json.dumps({})]
        if len(words) > CONTEXT_TOKENS:
            raise ContextExceeded(
                f"the prompt of {len(words)} tokens exceeds the context length of {CONTEXT_TOKENS}"
            )
        shown = words if sampling.predict_max is None else words[: sampling.predict_max]
        self.running += 1
        try:
            for index, word in enumerate(shown):
                if emit(word if index == 0 else f" {word}") or not self._may_go_on(emit):
                    self.stopped += 1
                    break
        finally:
            self.running -= 1
        return Report("length" if len(shown) < len(words) else "stop", len(words), 1_000, len(shown), 2_000)

    def close(self) -> None:
        self.closed = True

    def _may_go_on(self, emit: Emit) -> bool:
        for _ in range(round(PATIENCE_S / 0.01)):
            if self.go.wait(0.01):
                return True
            if emit(""):
                return False
        return False


def _token(word: str) -> int:
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") % 30_000 + 3


def _card(name: str, *aliases: str, embedding: bool) -> Card:
    return Card(
        name=name,
        aliases=aliases,
        capability="embedding" if embedding else "completion",
        digest=hashlib.sha256(name.encode()).hexdigest(),
        file_format="fake",
        family="fake",
        parameter_size="0",
        quantization="none",
        context_tokens=CONTEXT_TOKENS,
        embedding_length=DIMENSION,
        info={"general.architecture": "fake", "fake.embedding_length": DIMENSION},
    )


def fake_shelf(*, chat: ChatModel | None = None) -> Shelf:
    """A shelf with the names of the real models and fakes behind them."""

    def weights() -> Weights:
        return Weights(1, datetime(2026, 1, 1, tzinfo=UTC))

    return Shelf(
        embedders=(
            Offer(
                _card("all-minilm:latest", "all-minilm:l6-v2", "all-minilm:22m", embedding=True),
                weights,
                FakeEmbedder,
            ),
        ),
        chats=(
            Offer(
                _card("smollm2:135m", "smollm2:135m-instruct-q4_1", embedding=False),
                weights,
                lambda: chat or FakeChat(),
            ),
        ),
    )
