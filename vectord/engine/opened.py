"""A collection in use: its shard, who uses it, and what is being done to it."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from schemas.vectors import CollectionSpec, Migration, ReembedState
from services.errors import Conflict, Unavailable
from vectord.backends import Shard
from vectord.engine.disk import Manifest


@dataclass(slots=True)
class Users:
    """Those who may be using one shard of a collection."""

    count: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Opened:
    """A collection in use. `writer` is held by the one that writes.

    `shard` is another one after a move: take it anew for every call.
    """

    name: str
    manifest: Manifest
    shard: Shard
    durable: bool = True
    """Whether the shard's `flush` makes writes survive a power loss."""
    writer: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: Users = field(default_factory=Users)
    written: int = 0
    commits: int = 0
    optimizing: bool = False
    moving: bool = False
    deleted: bool = False
    migration: Migration | None = None
    reembed: ReembedState | None = None
    """How far the last one is that this process began, if it began any."""
    ef: int | None = None
    """How widely searches look that do not say it themselves; None leaves it to the store."""
    built_s: float | None = None
    """Seconds that the last rebuild of the index took, if there was one."""

    @property
    def spec(self) -> CollectionSpec:
        return self.manifest.spec

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only one to move, rebuild or delete it for the length of a block; 409 where one is."""
        if self.moving:
            raise Conflict(
                f"the collection {self.name!r} is being moved, rebuilt or deleted; wait until that has ended",
                code="collection_moving",
            )
        self.moving = True
        try:
            yield
        finally:
            self.moving = False

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Hold the shard open for the length of a block."""
        users = self.users
        users.count += 1
        users.idle.clear()
        try:
            yield
        finally:
            users.count -= 1
            if users.count == 0:
                users.idle.set()


def refuse_changed(opened: Opened, manifest: Manifest) -> None:
    """Vectors made for another model are worse than none: the collection was embedded again meanwhile."""
    now = opened.manifest
    if (now.dimension, now.model_digest) != (manifest.dimension, manifest.model_digest):
        raise Unavailable(
            f"the collection {opened.name!r} was embedded again meanwhile; send the request again",
            code="collection_changed",
        )
