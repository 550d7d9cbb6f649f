"""The store's protocol: one shard a collection, blocking calls, values in and values out."""

import errno
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from schemas.vectors import Distance, EngineName, Filter, IndexKind, PointId

Payload = dict[str, Any]


class StoreError(Exception):
    """The store could not do what was asked; the message is for the log."""


class StoreFull(StoreError):
    """The disk has no room for what was asked. The message is for the log."""


class StoreLost(StoreError):
    """The process that does the work is gone; the next call starts another. The message is for the log."""


class ShardTaken(StoreError):
    """Something else lies where the shard should be made; the message is for the caller."""


class EngineMissing(StoreError):
    """The engine is not installed or not configured; the message is for the caller, and says what to do."""


class EngineUnreachable(StoreError):
    """The engine's server does not answer; the message is for the caller."""


ENGINE_BYTES: Final = 16 * 1024**2
"""What an engine may take to open a shard or to make one (8 MiB were measured), beside what is written."""

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_SAID: Final = (*(os.strerror(number) for number in FULL), *(f"os error {number})" for number in FULL))


def failure(doing: str, error: BaseException) -> StoreError:
    """What an engine raised, as ours. Engines say only in words that a disk is full."""
    told = f"{doing}: {error}"
    return StoreFull(told) if any(word in told for word in _SAID) else StoreError(told)


@dataclass(frozen=True, slots=True)
class ShardSpec:
    """What a shard needs to know to be made or opened."""

    dimension: int
    distance: Distance
    hybrid: bool
    payload_indexes: Mapping[str, IndexKind] = field(default_factory=dict)
    engine: EngineName = "edge"
    name: str = "shard"
    model_digest: str | None = None
    gated: bool = False

    def stamp(self) -> str:
        """What two processes that share one shard must agree on."""
        indexes = sorted(self.payload_indexes.items())
        return json.dumps(
            [self.dimension, self.distance, self.hybrid, indexes, self.model_digest, self.gated]
        )


@dataclass(frozen=True, slots=True)
class Record:
    """A point as stored. `role` is as the writer gave it, `role_key` its normal form for the index.

    `vector` is float32 numbers; it is empty when it was not asked for.
    """

    id: PointId
    vector: Sequence[float]
    text: str | None = None
    role: str | None = None
    role_key: str | None = None
    payload: Payload = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scored:
    """A record and its score; higher is nearer."""

    record: Record
    score: float


@dataclass(frozen=True, slots=True)
class RoleScope:
    """The points a caller may see: those whose `role_key` is in `keys`, and perhaps those without a role."""

    keys: frozenset[str]
    without_role: bool


@dataclass(frozen=True, slots=True)
class Where:
    """Which points: all three hold. None says nothing, an empty scope lets nothing through."""

    filter: Filter | None = None
    ids: Sequence[PointId] | None = None
    scope: RoleScope | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """A search: by `vector`, or by the words of `text` (BM25). Exactly one is given.

    `ef` says how widely a graph of neighbours is searched: more of the nearest are found, in more time. None
    leaves it to the store.
    """

    limit: int
    vector: Sequence[float] | None = None
    text: str | None = None
    exact: bool = False
    with_vector: bool = False
    ef: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Records in the order of their stored ids, and the cursor of the next page."""

    records: list[Record]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """How many points there are, and how many of them the vector index covers."""

    points: int
    indexed: int


class Shard(Protocol):
    """One open collection. Calls block; the caller runs them off the event loop, one writer at a time."""

    def upsert(self, records: Sequence[Record]) -> None:
        """Write all records or none. A record replaces one with the same id."""

    def delete(self, ids: Sequence[PointId]) -> None:
        """Delete these points; unknown ids are no error."""

    def get(self, ids: Sequence[PointId], *, with_vector: bool) -> list[Record]:
        """The points of these ids that exist, in the order of `ids`."""

    def scroll(self, where: Where, *, limit: int, cursor: str | None, with_vector: bool) -> Page:
        """A page of matching points. Raises ValueError for a cursor that is none."""

    def count(self, where: Where) -> int: ...

    def search(self, query: Query, where: Where) -> list[Scored]:
        """The best matching points, best first."""

    def flush(self) -> None:
        """Return when everything written so far would survive a power loss."""

    def optimize(self) -> None:
        """Build or merge the indexes. May take long."""

    def info(self) -> ShardInfo: ...

    def close(self) -> None: ...


class Store(Protocol):
    """Makes and opens shards in folders it is given. Raises `StoreError` when it cannot."""

    def create(self, folder: pathlib.Path, spec: ShardSpec) -> None:
        """Make an empty shard in `folder`, which does not exist yet."""

    def open(self, folder: pathlib.Path, spec: ShardSpec) -> Shard: ...


class OutsideStore(Store, Protocol):
    """A store that may keep points outside the folder; what lies there is its locator."""

    def drop(self, folder: pathlib.Path) -> None:
        """Remove what is kept outside the folder, if this folder made it."""

    def durable(self) -> bool:
        """Whether `flush` reaches a medium that survives a power loss."""

    def close(self) -> None:
        """Let go of connections, when every shard is closed."""
