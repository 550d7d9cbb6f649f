"""The work of `embedd`: find vectors in the cache, compute the others once, never mix them up."""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import orjson

from embedd.backends import SharedCache, Vectors
from embedd.engine.cache import Entry, FragmentCache, VectorCache, cache_key, key_base
from embedd.engine.metrics import Metrics
from embedd.engine.pool import Abandoned, Flight, Plan, Pool
from schemas.embeddings import EncodingFormat, InputType
from services.errors import InvalidRequest, Overloaded, PlatformError

MODEL_CHANGES_MAX: Final = 3
"""So often is a request started anew because its model was replaced meanwhile."""

FLOAT_BYTES: Final = 4

KINDS: Final = ("openai",)
"""Providers that a model's name may begin with, beside Ollama, which needs no prefix."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a caller asks for. `prefix` is put before every text, and is part of what a vector is of."""

    kind: str
    model: str
    texts: list[str]
    prefix: str = ""
    truncate: bool = False


@dataclass(frozen=True, slots=True)
class Embedded:
    """Entries in the order of the texts, with their keys. `hits` + `misses` = texts. Times in ms."""

    keys: list[bytes]
    entries: list[Entry]
    digest: str
    hits: int
    misses: int
    queue_ms: float = 0.0
    inference_ms: float = 0.0

    @property
    def prompt_tokens(self) -> int:
        return sum(entry.prompt_tokens for entry in self.entries)


class ItemsFailed(InvalidRequest):
    """Some texts cannot be embedded. The message and `param` name them by their index."""


def narrowed(vectors: Vectors, dimensions: int) -> Vectors:
    """The first `dimensions` components, normalised again: what Ollama itself does for smaller sizes."""
    cut = vectors[..., :dimensions]
    result: Vectors = cut / np.linalg.norm(cut, axis=-1, keepdims=True)
    return result


class Engine:
    """Caches over a pool of backends. Belongs to one event loop."""

    def __init__(
        self,
        pool: Pool,
        cache: VectorCache,
        fragments: FragmentCache,
        metrics: Metrics,
        *,
        shared: SharedCache | None = None,
        options: Mapping[str, object] | None = None,
        prefixes: Mapping[str, Mapping[InputType, str]] | None = None,
    ) -> None:
        self._pool = pool
        self._cache = cache
        self._fragments = fragments
        self._metrics = metrics
        self._shared = shared
        self._options = orjson.dumps(options or {}, option=orjson.OPT_SORT_KEYS)
        self._prefixes = prefixes or {}
        self._flights: dict[bytes, Flight] = {}
        metrics.entries.set_function(lambda: len(cache))
        metrics.bytes.set_function(lambda: cache.bytes)
        metrics.fragment_bytes.set_function(lambda: fragments.bytes)

    def order(self, model: str, texts: list[str], input_type: InputType | None, *, truncate: bool) -> Order:
        """What a request for a model means: `provider/model` picks a provider, a bare name is Ollama's."""
        provider, slash, rest = model.partition("/")
        kind, name = ("ollama", model)
        if slash and provider in KINDS:
            kind, name = provider, rest
        elif slash and provider == "ollama":
            name = rest
        prefix = self._prefixes.get(name, {}).get(input_type, "") if input_type else ""
        return Order(kind, name, texts, prefix, truncate)

    # --- finding ----------------------------------------------------------------------------

    def cached(self, order: Order) -> Embedded | None:
        """The answer, if all of it is in the cache and the model's digest is known: without waiting.

        Whoever uses it says so with `count_hits`.
        """
        digest = self._pool.known_digest(order.kind, order.model)
        if digest is None:
            return None
        keys = self._keys(order, digest)
        entries: list[Entry] = []
        for key in keys:
            entry = self._cache.get(key)
            if entry is None:
                return None
            entries.append(entry)
        return Embedded(keys, entries, digest, len(keys), 0)

    def count_hits(self, texts: int) -> None:
        self._metrics.hits.inc(texts)

    def _keys(self, order: Order, digest: str) -> list[bytes]:
        options = self._options + (b"truncate" if order.truncate else b"")
        base = key_base(order.kind, digest, options)
        return [cache_key(base, order.prefix, text) for text in order.texts]

    async def embed(self, order: Order) -> Embedded:
        """Embed texts, in order.

        Raises `NotFound` for the model, `ItemsFailed` naming texts that cannot be embedded, `Overloaded` when
        too many wait, and the backend's error otherwise. Nothing that failed is kept.
        """
        for _ in range(MODEL_CHANGES_MAX):
            digest = await self._pool.digest(order.kind, order.model)
            try:
                return await self._embed(order, digest)
            except Overloaded as error:
                if error.code != "model_changed":
                    raise
                changed = error
        raise changed

    async def _embed(self, order: Order, digest: str) -> Embedded:
        keys = self._keys(order, digest)
        found: dict[bytes, Entry] = {}
        missing: dict[bytes, str] = {}
        for key, text in zip(keys, order.texts, strict=True):
            if key in found or key in missing:
                continue
            if (entry := self._cache.get(key)) is not None:
                found[key] = entry
            else:
                missing[key] = text
        misses = sum(key in missing for key in keys)
        self._metrics.hits.inc(len(keys) - misses)
        self._metrics.misses.inc(misses)
        if self._shared is not None and missing:
            await self._ask_shared(self._shared, found, missing)
        flights: dict[bytes, Flight] = {}
        if missing:
            plan = Plan(order.kind, order.model, digest, order.truncate)
            flights = await self._fly(plan, order.prefix, missing)
            self._raise_failures(keys, flights)
            found |= {key: flight.done.result() for key, flight in flights.items()}
        return Embedded(
            keys,
            [found[key] for key in keys],
            digest,
            len(keys) - misses,
            misses,
            queue_ms=max((f.sent_at - f.queued_at for f in flights.values()), default=0.0) * 1000,
            inference_ms=max((f.finished_at - f.sent_at for f in flights.values()), default=0.0) * 1000,
        )

    async def _ask_shared(
        self, shared: SharedCache, found: dict[bytes, Entry], missing: dict[bytes, str]
    ) -> None:
        keys = list(missing)
        for key, value in zip(keys, await shared.get(keys), strict=True):
            entry = Entry.unpacked(value) if value is not None else None
            if entry is not None:
                self._cache.put(key, entry)
                found[key] = entry
                del missing[key]

    # --- computing --------------------------------------------------------------------------

    async def _fly(self, plan: Plan, prefix: str, missing: Mapping[bytes, str]) -> dict[bytes, Flight]:
        """Wait for the vectors of these texts; those that nobody computes yet are started."""
        joined = {key: self._flights[key] for key in missing if key in self._flights}
        fresh = [key for key in missing if key not in joined]
        started = self._pool.submit(plan, [prefix + missing[key] for key in fresh])
        for flight in joined.values():
            flight.waiters += 1
        self._metrics.joins.inc(len(joined))
        for key, flight in zip(fresh, started, strict=True):
            self._flights[key] = flight
            flight.done.add_done_callback(partial(self._landed, key, flight))
        flights = joined | dict(zip(fresh, started, strict=True))
        try:
            await asyncio.wait([flight.done for flight in flights.values()])
        finally:
            for key, flight in flights.items():
                self._leave(key, flight)
        return flights

    def _leave(self, key: bytes, flight: Flight) -> None:
        """One waiter less. The last one to leave an unfinished flight takes it from the table."""
        flight.waiters -= 1
        if flight.waiters == 0 and not flight.done.done():
            self._forget(key, flight)
            self._pool.abandon(flight)

    def _forget(self, key: bytes, flight: Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    def _landed(self, key: bytes, flight: Flight, done: "asyncio.Future[Entry]") -> None:
        self._forget(key, flight)
        if done.cancelled() or done.exception() is not None:
            return
        entry = done.result()
        self._cache.put(key, entry)
        if self._shared is not None:
            self._shared.put({key: entry.packed()})

    @staticmethod
    def _raise_failures(keys: Sequence[bytes], flights: Mapping[bytes, Flight]) -> None:
        """Raise for the texts that failed: the caller's mistakes by index, anything else as it is."""
        errors = {key: error for key, flight in flights.items() if (error := flight.done.exception())}
        if not errors:
            return
        for error in errors.values():
            if isinstance(error, Abandoned):  # joined in the moment it was given up
                raise Overloaded("the computation was given up; retry") from error
            if not isinstance(error, InvalidRequest) or error.param is not None:
                raise error
        places = [index for index, key in enumerate(keys) if key in errors]
        first = errors[keys[places[0]]]
        assert isinstance(first, PlatformError)
        listed = ", ".join(f"`input.{index}`" for index in places[:20])
        more = f" and {len(places) - 20} more" if len(places) > 20 else ""
        raise ItemsFailed(f"{listed}{more}: {first.message}", code=first.code, param=f"input.{places[0]}")

    # --- answering --------------------------------------------------------------------------

    @staticmethod
    def check_dimensions(embedded: Embedded, dimensions: int | None) -> None:
        """Raise `InvalidRequest` for more dimensions than the model has."""
        native = len(embedded.entries[0].vector) // FLOAT_BYTES
        if dimensions is not None and dimensions > native:
            raise InvalidRequest(f"`dimensions` is {dimensions}; the model has {native}", param="dimensions")

    def fragments(
        self, embedded: Embedded, rows: range, encoding: EncodingFormat, dimensions: int | None
    ) -> list[bytes]:
        """The JSON texts of some vectors: lists of numbers, or base64 in quotes."""
        native = len(embedded.entries[0].vector) // FLOAT_BYTES
        wanted = None if dimensions == native else dimensions
        suffix = encoding.encode() + (wanted or 0).to_bytes(4, "little")
        out: list[bytes] = []
        for row in rows:
            key = embedded.keys[row] + suffix
            fragment = self._fragments.get(key)
            if fragment is None:
                fragment = _fragment(embedded.entries[row], encoding, wanted)
                self._fragments.put(key, fragment)
            out.append(fragment)
        return out

    async def ping(self) -> None:
        await self._pool.ping()

    async def close(self) -> None:
        """Stop what is still being computed."""
        await self._pool.close()


def _fragment(entry: Entry, encoding: EncodingFormat, dimensions: int | None) -> bytes:
    vector = np.frombuffer(entry.vector, "<f4")
    if dimensions is not None:
        vector = narrowed(vector, dimensions).astype("<f4", copy=False)
    if encoding == "base64":
        return b'"' + base64.b64encode(vector.tobytes()) + b'"'
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY)
