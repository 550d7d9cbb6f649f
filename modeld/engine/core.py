"""The work itself: finding models, embedding texts, generating answers. Knows nothing of HTTP."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import structlog
from pydantic import JsonValue

from modeld.backends import (
    Card,
    ChatModel,
    ContextExceeded,
    Embedder,
    Message,
    ModelNotFound,
    NotANumber,
    NotCapable,
    Report,
    Sampling,
    Shelf,
    Tokens,
    Vectors,
    Weights,
)
from modeld.engine.admission import Admission
from modeld.engine.batches import batches
from modeld.engine.generation import Generation
from modeld.engine.metrics import Metrics
from modeld.engine.residency import Resident
from services.errors import InvalidRequest, PlatformError, Unavailable
from services.tasks import TaskSet, every

log = structlog.get_logger(__name__)

SWEEP_S = 1.0
REGISTRY_PREFIXES = ("registry.ollama.ai/", "library/")

M = TypeVar("M", Embedder, ChatModel)


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of the engine; see the settings of the same names."""

    embed_threads: int = 2
    keep_alive_s: float = 300.0
    embed_queue_max: int = 512
    embed_inputs_max: int = 2048
    batch_items_max: int = 16
    batch_tokens_max: int = 2048
    chat_slots: int = 2
    chat_queue_max: int = 64


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of one call, a row for each text, and what they took."""

    vectors: Vectors
    tokens: int
    load_ns: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is to continue: a conversation, or raw text; and the schema of the answer, if any."""

    text: Sequence[Message] | str
    sampling: Sampling
    schema: Mapping[str, JsonValue] | None = None


class Engine:
    """All models of this server, at most one copy of each in memory."""

    def __init__(self, shelf: Shelf, limits: Limits, tasks: TaskSet, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._embedders = {
            offer.card.name: Resident(offer, tasks, keep_alive_s=limits.keep_alive_s)
            for offer in shelf.embedders
        }
        self._chats = {
            offer.card.name: Resident(offer, tasks, keep_alive_s=limits.keep_alive_s) for offer in shelf.chats
        }
        self._names = {alias: card.name for card in self.known() for alias in (card.name, *card.aliases)}
        self._weights: dict[str, Weights] = {}
        self._refusals: dict[str, PlatformError] = {}
        self._embed_places = Admission(places=limits.embed_threads, queue_max=limits.embed_queue_max)
        self._chat_places = Admission(places=limits.chat_slots, queue_max=limits.chat_queue_max)
        self._embed_threads = ThreadPoolExecutor(limits.embed_threads, "embed")
        self._chat_threads = ThreadPoolExecutor(limits.chat_slots, "chat")
        self._watch()

    # --- life ---------------------------------------------------------------------------------

    async def warm_up(self) -> None:
        """Check the files of every model and load the embedding models; what is wrong shows in `ready`."""
        for resident in self._residents():
            try:
                self._weights[resident.card.name] = await asyncio.to_thread(resident.offer.inspect)
            except PlatformError as error:
                self._refusals[resident.card.name] = error
                log.warning("model refused", model=resident.card.name, reason=error.message)
        for name, embedder in self._embedders.items():
            if name in self._weights:
                await embedder.acquire(None)
                embedder.release()

    async def sweep(self) -> None:
        """Unload, for ever, the models whose time has come."""

        async def expire() -> None:
            for resident in self._residents():
                resident.expire()

        await every(SWEEP_S, expire, name="unload idle models")

    async def close(self) -> None:
        for threads in (self._embed_threads, self._chat_threads):
            await asyncio.to_thread(threads.shutdown, cancel_futures=True)
        for resident in self._residents():
            await resident.close()

    async def ready(self, name: str) -> None:
        """Raise, with the reason, unless the model can be had."""
        if name in self._refusals:
            raise self._refusals[name]
        if name not in self._weights:
            raise Unavailable("its weights are still being checked")

    # --- models -------------------------------------------------------------------------------

    def known(self) -> list[Card]:
        """Every model that could be here, usable or not."""
        return [resident.card for resident in self._residents()]

    def usable(self) -> list[tuple[Card, Weights]]:
        """The models whose files are here and in order."""
        return [(card, self._weights[card.name]) for card in self.known() if card.name in self._weights]

    def loaded(self) -> list[tuple[Resident[Embedder] | Resident[ChatModel], Weights]]:
        """The models that are in memory."""
        return [(one, self._weights[one.card.name]) for one in self._residents() if one.loaded]

    def find(self, name: str) -> tuple[Card, Weights]:
        """A model by any of its names. Raises `ModelNotFound`, or the reason why it is refused."""
        card_name = self._resolve(name)
        return next((card, weights) for card, weights in self.usable() if card.name == card_name)

    def _residents(self) -> list[Resident[Embedder] | Resident[ChatModel]]:
        return [*self._embedders.values(), *self._chats.values()]

    def _resolve(self, name: str) -> str:
        if not name:
            raise InvalidRequest("model is required", param="model")
        plain = name.lower()
        for prefix in REGISTRY_PREFIXES:
            plain = plain.removeprefix(prefix)
        found = self._names.get(plain) or self._names.get(f"{plain}:latest")
        if found is None:
            raise ModelNotFound(f"model '{name}' not found", param="model")
        refusal = self._refusals.get(found)
        if isinstance(refusal, ModelNotFound):
            raise ModelNotFound(f"model '{name}' not found: {refusal.message}", param="model")
        if refusal is not None:
            raise refusal
        if found not in self._weights:
            raise Unavailable(f"model '{name}' is still being checked; try again soon")
        return found

    def _require(self, name: str, among: dict[str, Resident[M]], ability: str) -> Resident[M]:
        found = among.get(self._resolve(name))
        if found is None:
            raise NotCapable(f'"{name}" does not support {ability}', param="model")
        return found

    def embedder(self, name: str) -> Resident[Embedder]:
        return self._require(name, self._embedders, "embeddings")

    def chat_model(self, name: str, ability: str) -> Resident[ChatModel]:
        return self._require(name, self._chats, ability)

    async def preload(self, resident: Resident[M], keep_alive_s: float | None) -> int:
        """Load the model, or with 0 unload it; nanoseconds."""
        started = time.perf_counter_ns()
        if keep_alive_s == 0 and not resident.loaded:
            return 0
        await resident.acquire(keep_alive_s)
        resident.release()
        return time.perf_counter_ns() - started

    # --- embedding ----------------------------------------------------------------------------

    async def embed(
        self,
        resident: Resident[Embedder],
        texts: Sequence[str],
        *,
        truncate: bool,
        dimensions: int | None,
        keep_alive_s: float | None,
    ) -> Embedded:
        """A unit vector for each text, in order.

        Raises `ContextExceeded` for a long text that may not be truncated, `NotANumber` for a faulty vector.
        """
        self._check_embed(resident.card, texts, dimensions)
        async with self._place(self._embed_places):
            started = time.perf_counter_ns()
            model = await resident.acquire(keep_alive_s)
            load_ns = time.perf_counter_ns() - started
            try:
                tokens = await self._tokenize(resident.card, model, texts, truncate=truncate)
                vectors = await self._forward(model, tokens, resident.card.embedding_length)
            finally:
                resident.release()
        if dimensions is not None and dimensions < vectors.shape[1]:
            cut = vectors[:, :dimensions]
            vectors = np.ascontiguousarray(cut / np.linalg.norm(cut, axis=1, keepdims=True))
        if not np.isfinite(vectors).all():
            raise NotANumber("the embedding contains NaN or Inf values")
        count = sum(map(len, tokens))
        self._metrics.tokens.labels(resident.card.name, "read").inc(count)
        self._metrics.texts.labels(resident.card.name).inc(len(texts))
        return Embedded(vectors, count, load_ns)

    def _check_embed(self, card: Card, texts: Sequence[str], dimensions: int | None) -> None:
        if len(texts) > self._limits.embed_inputs_max:
            raise InvalidRequest(
                f"`input` has {len(texts)} texts; at most {self._limits.embed_inputs_max} are accepted",
                param="input",
            )
        if dimensions is not None and not 0 < dimensions <= card.embedding_length:
            raise InvalidRequest(
                f"`dimensions` is {dimensions}; {card.name} has 1 to {card.embedding_length}",
                param="dimensions",
            )

    async def _tokenize(
        self, card: Card, model: Embedder, texts: Sequence[str], *, truncate: bool
    ) -> list[Tokens]:
        loop = asyncio.get_running_loop()
        tokens = await loop.run_in_executor(self._embed_threads, model.tokenize, texts)
        for index, sequence in enumerate(tokens):
            if len(sequence) > card.context_tokens:
                if not truncate:
                    raise ContextExceeded(
                        f"input {index} of {len(sequence)} tokens"
                        f" exceeds the context length of {card.context_tokens}",
                        param="input",
                    )
                tokens[index] = model.truncate(sequence, card.context_tokens)
        return tokens

    async def _forward(self, model: Embedder, tokens: Sequence[Tokens], dimension: int) -> Vectors:
        vectors = np.empty((len(tokens), dimension), np.float32)
        limits = self._limits
        groups = list(batches(tokens, items_max=limits.batch_items_max, tokens_max=limits.batch_tokens_max))
        loop = asyncio.get_running_loop()
        for first in range(
            0, len(groups), limits.embed_threads
        ):  # so that others get a turn between two rounds
            round_ = groups[first : first + limits.embed_threads]
            rows = await asyncio.gather(
                *(
                    loop.run_in_executor(self._embed_threads, model.embed, [tokens[i] for i in group])
                    for group in round_
                )
            )
            for group, found in zip(round_, rows, strict=True):
                vectors[group] = found
        return vectors

    # --- chat ---------------------------------------------------------------------------------

    async def generate(
        self, resident: Resident[ChatModel], prompt: Prompt, *, keep_alive_s: float | None
    ) -> Generation:
        """Start an answer and wait for its first piece. Iterate over it, or cancel it.

        Its slot and its hold on the model end with the thread that makes it, not with the caller.
        """
        await self._chat_places.enter()
        started = time.perf_counter_ns()
        try:
            model = await resident.acquire(keep_alive_s)
        except BaseException:
            self._chat_places.leave()
            raise

        def finished() -> None:
            resident.release()
            self._chat_places.leave()

        text = prompt.text if isinstance(prompt.text, str) else model.render(prompt.text)
        generation = Generation(
            partial(model.generate, text, prompt.sampling, prompt.schema),
            self._chat_threads,
            finished,
            load_ns=time.perf_counter_ns() - started,
        )
        await generation.begin()
        return generation

    def count(self, resident: Resident[ChatModel], report: Report) -> None:
        """Add a finished answer to the metrics."""
        self._metrics.tokens.labels(resident.card.name, "read").inc(report.prompt_tokens)
        self._metrics.tokens.labels(resident.card.name, "written").inc(report.answer_tokens)

    def _watch(self) -> None:
        for kind, places in (("embed", self._embed_places), ("chat", self._chat_places)):
            self._metrics.waiting.labels(kind).set_function(partial(_waiting, places))
        for resident in self._residents():
            self._metrics.loaded.labels(resident.card.name).set_function(partial(_loaded, resident))

    # --- bounds -------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _place(self, places: Admission) -> AsyncIterator[None]:
        await places.enter()
        try:
            yield
        finally:
            places.leave()


def _waiting(places: Admission) -> float:
    return places.waiting


def _loaded(resident: Resident[Embedder] | Resident[ChatModel]) -> float:
    return float(resident.loaded)
