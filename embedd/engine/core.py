"""The work of `embedd`: find vectors in the cache, compute the others once, never mix them up."""

import asyncio
import base64
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

import numpy as np
import orjson

from embedd.backends import SharedCache, Vectors
from embedd.engine.cache import Entry, FragmentCache, VectorCache, cache_key, composed, key_base
from embedd.engine.flights import Abandoned, Flight, Plan
from embedd.engine.lanes import MODEL_CHANGED, Distrusted
from embedd.engine.metrics import Metrics
from embedd.engine.pool import Pool
from schemas.embeddings import EncodingFormat, InputType
from services.errors import InvalidRequest, Overloaded, PlatformError, UpstreamError

MODEL_CHANGES_MAX: Final = 3
"""So often is a request started anew because its model was replaced meanwhile."""

FLOAT_BYTES: Final = 4

PLACES_NAMED_MAX: Final = 2048
"""Texts that one message names: all of the largest request that is accepted by default."""

KINDS: Final = ("openai",)
"""Providers that a model's name may begin with, beside Ollama, which needs no prefix."""


class Order(NamedTuple):
    """What a caller asks for. `prefix` is put before every text, and is part of what a vector is of."""

    kind: str
    model: str
    texts: list[str]
    prefix: str = ""
    truncate: bool = False


class Embedded(NamedTuple):
    """Entries in the order of the texts, with their keys. `hits` + `misses` = texts. Times in ms, rounded."""

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
            digest = await self._pool.lanes.digest(order.kind, order.model)
            try:
                return await self._embed(order, digest)
            except Overloaded as error:
                if error.code != MODEL_CHANGED:
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
                missing[key] = composed(text)
        misses = sum(key in missing for key in keys)
        self._metrics.hits.inc(len(keys) - misses)
        self._metrics.misses.inc(misses)
        plan = Plan(order.kind, order.model, digest, order.truncate)
        if self._shared is not None and missing:
            await self._ask_shared(self._shared, plan, found, missing)
            misses = sum(key in missing for key in keys)
        flights: dict[bytes, Flight] = {}
        if missing:
            flights = await self._fly(plan, order.prefix, missing)
            self._raise_failures(keys, flights)
            found |= {key: flight.done.result() for key, flight in flights.items()}
        return Embedded(
            keys,
            [found[key] for key in keys],
            digest,
            len(keys) - misses,
            misses,
            queue_ms=_ms(f.sent_at - f.queued_at for f in flights.values()),
            inference_ms=_ms(f.finished_at - f.sent_at for f in flights.values()),
        )

    async def _ask_shared(
        self, shared: SharedCache, plan: Plan, found: dict[bytes, Entry], missing: dict[bytes, str]
    ) -> None:
        """Move from `missing` to `found` what others have kept, and what was computed here meanwhile."""
        keys = list(missing)
        dimension = self._pool.lanes.dimension(plan.kind, plan.digest)
        for key, value in zip(keys, await shared.get(keys), strict=True):
            entry = self._cache.get(key)
            if entry is None and value is not None:
                entry = Entry.unpacked(value)
                if entry is not None and dimension not in (None, len(entry.vector) // FLOAT_BYTES):
                    continue
                if entry is not None:
                    self._keep(key, entry)
            if entry is not None:
                found[key] = entry
                del missing[key]

    def _keep(self, key: bytes, entry: Entry) -> None:
        self._cache.put(key, entry)
        self._fragments.forget(key)

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
        self._pool.spans.wanted(flights.values())
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
        self._keep(key, entry)
        if self._shared is not None:
            self._shared.put({key: entry.packed()})

    @staticmethod
    def _raise_failures(keys: Sequence[bytes], flights: Mapping[bytes, Flight]) -> None:
        """Raise for texts that failed: what is the texts' own fault by index, anything else as it is."""
        errors = {key: error for key, flight in flights.items() if (error := flight.done.exception())}
        if not errors:
            return
        for error in errors.values():
            if isinstance(error, Abandoned):  # joined in the moment it was given up
                raise Overloaded("the computation was given up; retry") from error
            if not _may_be_of_a_text(error):
                raise error
        places = [index for index, key in enumerate(keys) if key in errors]
        different = {id(error): error for error in errors.values()}
        if len(different) == 1 and len(errors) > 1:  # one failure of the backend, not of each text
            raise errors[keys[places[0]]]
        raise _named(places, errors[keys[places[0]]], errors.values())

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

    async def close(self) -> None:
        """Stop what is still being computed."""
        await self._pool.close()


def _ms(seconds: Iterable[float]) -> float:
    """The longest of some times, in milliseconds."""
    return round(max(seconds, default=0.0) * 1000, 2)


def _may_be_of_a_text(error: BaseException) -> bool:
    if isinstance(error, Distrusted):
        return False
    return isinstance(error, InvalidRequest | UpstreamError) and error.param is None


def _named(places: Sequence[int], first: BaseException, errors: Iterable[BaseException]) -> PlatformError:
    """The failure of some texts, whose places it names. The caller's mistakes outweigh a backend's."""
    mistakes = [error for error in errors if isinstance(error, InvalidRequest)]
    cause = mistakes[0] if mistakes else first
    assert isinstance(cause, PlatformError)
    listed = ", ".join(f"`input.{index}`" for index in places[:PLACES_NAMED_MAX])
    more = f" and {len(places) - PLACES_NAMED_MAX} more" if len(places) > PLACES_NAMED_MAX else ""
    kind = ItemsFailed if mistakes else UpstreamError
    message, param = f"{listed}{more}: {cause.message}", f"input.{places[0]}"
    return kind(message, code=cause.code, param=param, summary=cause.summary)


def _fragment(entry: Entry, encoding: EncodingFormat, dimensions: int | None) -> bytes:
    vector = np.frombuffer(entry.vector, "<f4")
    if dimensions is not None:
        vector = narrowed(vector, dimensions).astype("<f4", copy=False)
    if encoding == "base64":
        return b'"' + base64.b64encode(vector.tobytes()) + b'"'
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY)
