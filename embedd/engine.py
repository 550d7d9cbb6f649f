"""The work of `embedd`: find vectors in the cache, compute the others once, never mix them up."""

import asyncio
import hashlib
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from cachetools import LRUCache
from prometheus_client import CollectorRegistry, Counter, Gauge

from embedd.backends import Backend, Computed, Vectors
from services.errors import InvalidRequest, NotFound, Overloaded
from services.tasks import TaskSet

KEY_VERSION = b"1"
ENTRY_OVERHEAD_BYTES = 320
"""What an entry costs beside its vector: key, dict slot, order node and objects (measured, rounded up)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A full native vector as little-endian float32 bytes, and the tokens its text was charged."""

    vector: bytes
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of shape (texts, dimension) in the order of the texts. `hits` + `misses` = texts."""

    vectors: Vectors
    model_digest: str
    prompt_tokens: int
    hits: int
    misses: int


class Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.hits = Counter("embedd_cache_hits", "Texts found in the cache.", registry=registry)
        self.misses = Counter("embedd_cache_misses", "Texts not found there.", registry=registry)
        self.joins = Counter("embedd_joined", "Texts that waited for another caller's.", registry=registry)
        self.calls = Counter("embedd_upstream_calls", "Calls to the backend.", registry=registry)
        self.texts = Counter("embedd_upstream_texts", "Texts sent to the backend.", registry=registry)
        self.entries = Gauge("embedd_cache_entries", "Vectors in the cache.", registry=registry)
        self.bytes = Gauge("embedd_cache_bytes", "Memory charged to the cache.", registry=registry)
        self.waiting = Gauge("embedd_waiting_texts", "Texts waiting for the backend.", registry=registry)


def cache_key(backend: str, digest: str, text: str) -> bytes:
    """The identity of a vector. Fields are length-prefixed, so that no two splits give the same bytes."""
    hasher = hashlib.blake2b(KEY_VERSION, digest_size=16)
    for part in (backend, digest, unicodedata.normalize("NFC", text)):
        data = part.encode()
        hasher.update(len(data).to_bytes(8, "little"))
        hasher.update(data)
    return hasher.digest()


def narrowed(vectors: Vectors, dimensions: int) -> Vectors:
    """The first `dimensions` components, normalised again: what Ollama itself does for smaller sizes."""
    cut = vectors[:, :dimensions]
    result: Vectors = cut / np.linalg.norm(cut, axis=1, keepdims=True)
    return result


def apportioned(total: int, texts: Sequence[str]) -> list[int]:
    """A call's tokens split over its texts by length, whole numbers that add up to the total."""
    characters = sum(map(len, texts))
    shares: list[int] = []
    seen = given = 0
    for text in texts:
        seen += len(text)
        upto = total * seen // characters
        shares.append(upto - given)
        given = upto
    return shares


class Engine:
    """A cache bounded in bytes over one backend. Belongs to one event loop."""

    def __init__(
        self,
        backend: Backend,
        metrics: Metrics,
        *,
        cache_bytes_max: int,
        batch_items_max: int,
        waiting_max: int,
        digest_ttl_s: float,
    ) -> None:
        self._backend = backend
        self._metrics = metrics
        self._cache: LRUCache[bytes, Entry] = LRUCache(
            cache_bytes_max, getsizeof=lambda entry: len(entry.vector) + ENTRY_OVERHEAD_BYTES
        )
        self._flights: dict[bytes, asyncio.Future[Entry]] = {}
        self._tasks = TaskSet()
        self._digests: dict[str, tuple[str, float]] = {}
        self._batch_items_max = batch_items_max
        self._waiting_max = waiting_max
        self._digest_ttl_s = digest_ttl_s

    async def embed(self, model: str, texts: Sequence[str], *, dimensions: int | None = None) -> Embedded:
        """Embed texts, in order. Raises `NotFound`, `Overloaded`, `InvalidRequest` or the backend's error."""
        digest = await self.digest(model)
        keys = [cache_key(self._backend.name, digest, text) for text in texts]
        found: dict[bytes, Entry] = {}
        missing: dict[bytes, str] = {}
        for key, text in zip(keys, texts, strict=True):
            if key in found or key in missing:
                continue
            if (entry := self._cache.get(key)) is not None:
                found[key] = entry
            else:
                missing[key] = text
        misses = sum(key in missing for key in keys)
        self._metrics.hits.inc(len(keys) - misses)
        self._metrics.misses.inc(misses)
        if missing:
            found |= await self._compute(model, missing)
        vectors = np.frombuffer(b"".join(found[key].vector for key in keys), dtype="<f4").reshape(
            len(keys), -1
        )
        if dimensions is not None:
            vectors = self._narrow(vectors, dimensions)
        tokens = sum(found[key].prompt_tokens for key in keys)
        return Embedded(vectors, digest, tokens, hits=len(keys) - misses, misses=misses)

    async def digest(self, model: str) -> str:
        """The digest behind a model's name, asked again after a while. Raises `NotFound`."""
        known = self._digests.get(model)
        if known is not None and time.monotonic() < known[1]:
            return known[0]
        until = time.monotonic() + self._digest_ttl_s
        self._digests = {info.name: (info.digest, until) for info in await self._backend.models()}
        for name in (model, f"{model}:latest"):
            if name in self._digests:
                self._digests[model] = self._digests[name]
                return self._digests[name][0]
        raise NotFound(f"model '{model}' not found", code="model_not_found", param="model")

    @staticmethod
    def _narrow(vectors: Vectors, dimensions: int) -> Vectors:
        native = vectors.shape[1]
        if dimensions > native:
            raise InvalidRequest(f"`dimensions` is {dimensions}; the model has {native}", param="dimensions")
        return vectors if dimensions == native else narrowed(vectors, dimensions)

    # --- computing --------------------------------------------------------------------------

    async def _compute(self, model: str, missing: dict[bytes, str]) -> dict[bytes, Entry]:
        """Entries for texts that are not cached: those that nobody computes yet are started, all awaited."""
        fresh = {key: text for key, text in missing.items() if key not in self._flights}
        self._metrics.joins.inc(len(missing) - len(fresh))
        if len(self._flights) + len(fresh) > self._waiting_max:
            raise Overloaded(f"{len(self._flights)} texts are waiting; at most {self._waiting_max} may")
        flights = {key: self._flights[key] for key in missing if key in self._flights}
        items = list(fresh.items())
        for start in range(0, len(items), self._batch_items_max):
            flights |= self._launch(model, items[start : start + self._batch_items_max])
        self._metrics.waiting.set(len(self._flights))
        # A caller that leaves must not take the computation away from the others: hence the shield.
        entries = await asyncio.gather(*(asyncio.shield(flight) for flight in flights.values()))
        return dict(zip(flights, entries, strict=True))

    def _launch(self, model: str, batch: list[tuple[bytes, str]]) -> dict[bytes, asyncio.Future[Entry]]:
        loop = asyncio.get_running_loop()
        flights: dict[bytes, asyncio.Future[Entry]] = {key: loop.create_future() for key, _ in batch}
        self._flights |= flights
        for flight in flights.values():
            flight.add_done_callback(_retrieve)
        self._tasks.start(self._fly(model, [text for _, text in batch], flights), name="embed batch")
        return flights

    async def _fly(self, model: str, texts: list[str], flights: dict[bytes, asyncio.Future[Entry]]) -> None:
        try:
            computed = await self._call(model, texts)
        except Exception as error:  # noqa: BLE001 - every waiter gets it, whatever it is
            for flight in flights.values():
                flight.set_exception(error)
        else:
            for key, entry in zip(flights, _entries(computed, texts), strict=True):
                self._store(key, entry)
                flights[key].set_result(entry)
        finally:
            for key, flight in flights.items():
                flight.cancel()  # does nothing to one that has its outcome
                del self._flights[key]
            self._metrics.waiting.set(len(self._flights))

    async def _call(self, model: str, texts: list[str]) -> Computed:
        self._metrics.calls.inc()
        self._metrics.texts.inc(len(texts))
        try:
            return await self._backend.embed(model, texts)
        except NotFound:
            self._digests.pop(model, None)
            raise

    def _store(self, key: bytes, entry: Entry) -> None:
        if len(entry.vector) + ENTRY_OVERHEAD_BYTES <= self._cache.maxsize:
            self._cache[key] = entry
        self._metrics.entries.set(len(self._cache))
        self._metrics.bytes.set(self._cache.currsize)

    async def close(self) -> None:
        """Stop what is still being computed."""
        await self._tasks.close()


def _retrieve(flight: asyncio.Future[Entry]) -> None:
    """Look at the outcome, so that one nobody waited for is not reported as forgotten."""
    if not flight.cancelled():
        flight.exception()


def _entries(computed: Computed, texts: list[str]) -> list[Entry]:
    shares = apportioned(computed.prompt_tokens, texts)
    rows = computed.vectors.astype("<f4", copy=False)
    return [Entry(row.tobytes(), tokens) for row, tokens in zip(rows, shares, strict=True)]
