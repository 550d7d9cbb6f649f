"""Shards of collections: made, opened and removed. Which engine has one is the manifest's to say."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import structlog

from schemas.vectors import EngineName
from services.errors import InvalidRequest, Unavailable
from vectord.backends import (
    EngineMissing,
    Engines,
    EngineUnreachable,
    Shard,
    ShardSpec,
    StoreError,
    StoreFull,
)
from vectord.engine.changes import Tell
from vectord.engine.disk import Disk, Manifest, disk_full

log = structlog.get_logger(__name__)

Fill = Callable[[Shard], None]


class Shards:
    """Blocking calls, but for `clear`."""

    def __init__(self, disk: Disk, store: Engines) -> None:
        self._disk = disk
        self._store = store

    def check(self, engine: EngineName) -> None:
        """Raise 400 for an engine that is not installed or not configured here."""
        try:
            self._store.check(engine)
        except EngineMissing as error:
            raise InvalidRequest(str(error), code="engine_missing", param="engine") from error

    def open(self, name: str, manifest: Manifest) -> Shard:
        """Raises `Unavailable`, saying what stands in the way."""
        try:
            return self._store.open(self._disk.shard_folder(name, manifest), manifest.shard_spec(name))
        except (EngineMissing, EngineUnreachable) as error:
            raise Unavailable(f"the collection {name!r} cannot be opened: {error}") from error
        except StoreFull as error:
            raise disk_full(f"the disk is too full to open the collection {name!r}") from error
        except StoreError as error:
            log.exception("collection cannot be opened", collection=name)
            raise Unavailable(f"the collection {name!r} cannot be opened; the log says why") from error

    def make(self, name: str, manifest: Manifest, tell: Tell, fill: Fill | None = None) -> None:
        """Make a collection's folder, which is there once `fill` has put its points in and it was told."""
        with self._disk.making(name, manifest) as folder:
            self._store.create(folder, manifest.shard_spec(name))
            if fill is not None:
                self._fill(folder, manifest.shard_spec(name), fill)
            tell()

    def _fill(self, folder: Path, spec: ShardSpec, fill: Fill) -> None:
        shard = self._store.open(folder, spec)
        try:
            fill(shard)
            shard.flush()
        finally:
            shard.close()

    def begin(self, name: str, manifest: Manifest) -> None:
        """Make the empty shard that a move goes to."""
        self._store.create(self._disk.shard_folder(name, manifest), manifest.shard_spec(name))

    def durable(self, manifest: Manifest) -> bool:
        """Whether `flush` makes writes to the shard survive a power loss."""
        return self._store.durable(manifest.engine)

    async def clear(self, folder: Path, shards: list[Path]) -> None:
        """Remove a folder, and what its shards keep elsewhere; what cannot be is left for the next start."""

        def clear() -> None:
            for shard in shards:
                self._store.drop(shard)
            if folder.exists():
                shutil.rmtree(folder)

        try:
            await asyncio.to_thread(clear)
        except (StoreError, OSError) as error:
            log.warning("left-over cannot be removed yet", folder=folder.name, reason=str(error))
