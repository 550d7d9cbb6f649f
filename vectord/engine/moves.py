"""Collections on their way to another shard: of another engine, or with vectors of another model."""

import asyncio
import contextlib
from pathlib import Path
from typing import cast

import structlog

from schemas.vectors import EngineName, Migration
from services.errors import Conflict, PlatformError
from services.tasks import TaskSet
from vectord.backends import Shard
from vectord.engine.changes import Changes
from vectord.engine.collections import Collections
from vectord.engine.disk import Disk, Manifest, folder_name, refused
from vectord.engine.limits import Limits
from vectord.engine.opened import Opened, Users
from vectord.engine.rebuild import Copy, Progress, Recording, Touched, Transform
from vectord.engine.runner import Runner
from vectord.engine.shards import Shards

log = structlog.get_logger(__name__)


class Moves:
    def __init__(
        self,
        collections: Collections,
        shards: Shards,
        disk: Disk,
        *,
        runner: Runner,
        limits: Limits,
        tasks: TaskSet,
        changes: Changes,
    ) -> None:
        self._collections = collections
        self._shards = shards
        self._disk = disk
        self._runner = runner
        self._limits = limits
        self._tasks = tasks
        self._changes = changes

    async def rebuild(
        self,
        name: str,
        manifest: Manifest,
        *,
        progress: Progress,
        transform: Transform | None = None,
    ) -> float:
        """Move the collection to a new shard as `manifest` describes it (its `shard` is chosen here).

        Reads and writes go on. `transform` changes records on the way; without it they stay the same. The
        answer is the new index's recall@10 over sampled points. Any failure leaves the old shard serving.
        """
        with contextlib.ExitStack() as stack:
            with self._collections.use(name) as opened:
                stack.enter_context(opened.alone())
                self._disk.check_free()
                old, users, recall = await self._move(opened, manifest, progress, transform)
            # Still alone: a collection made anew under this name would have its shard taken for a left-over.
            await users.idle.wait()
            await self._runner.run(old.close)
            for folder in await self._runner.run(self._disk.left_over, name, opened.manifest):
                await self._shards.clear(folder, [folder])
        return recall

    async def _move(
        self, opened: Opened, manifest: Manifest, progress: Progress, transform: Transform | None
    ) -> tuple[Shard, Users, float]:
        name, source = opened.name, opened.shard
        manifest = manifest.model_copy(update={"shard": folder_name(manifest.engine)})
        folder = self._disk.shard_folder(name, manifest)
        touched = Touched(self._limits.rebuild_changes_max)
        target: Shard | None = None
        try:
            await self._runner.run(self._shards.begin, name, manifest)
            target = await self._runner.run(self._shards.open, name, manifest)
            copy = Copy(source, target, touched, self._runner.run, progress, self._disk.check_free, transform)
            async with opened.writer:
                opened.shard = cast("Shard", Recording(source, touched))
            await copy.everything()
            await self._runner.run(target.optimize)
            await copy.settle_down()
            recall = await copy.check_samples_early(self._limits.rebuild_recall_min)
            async with opened.writer:
                await copy.catch_up()
                await copy.check_count()
                if recall is None:
                    recall = await copy.check_samples(self._limits.rebuild_recall_min)
                await self._runner.run(target.flush)
                await self._runner.run(self._changes.moved(name, opened.manifest, manifest))
                # On this thread, with nothing awaited before it is known everywhere: no half-made move.
                self._settle(name, manifest)
                users, opened.users = opened.users, Users()
                opened.manifest, opened.shard = manifest, target
                opened.durable = self._shards.durable(manifest)
        except asyncio.CancelledError:
            opened.shard = source  # the daemon ends, perhaps in a call; the next start clears up
            raise
        except BaseException:
            opened.shard = source
            await self._abandon(folder, target)
            raise
        log.info("collection moved", collection=name, engine=manifest.engine, points=copy.done)
        return source, users, recall

    def _settle(self, name: str, manifest: Manifest) -> None:
        try:
            self._disk.settle(name, manifest)
        except OSError as error:
            raise refused(error) from error

    async def _abandon(self, folder: Path, target: Shard | None) -> None:
        """Remove a shard that is not moved to. What went wrong before is what the caller has to hear."""
        try:
            if target is not None:
                await self._runner.run(target.close)
        except PlatformError as error:
            log.warning("shard not closed", folder=folder.name, reason=error.message)
        await self._shards.clear(folder, [folder])

    def migrate(self, name: str, engine: EngineName) -> Migration:
        """Begin to move a collection to another engine; `describe` says how far it is."""
        with self._collections.use(name) as opened, opened.alone():
            if engine == opened.manifest.engine:
                raise Conflict(f"the collection {name!r} is on {engine!r} already", code="same_engine")
            if opened.migration is not None and opened.migration.state == "running":
                raise Conflict(f"the collection {name!r} is being moved already", code="collection_moving")
            opened.migration = Migration(state="running", engine=engine, done=0, total=0)
            self._tasks.start(self._migrate(opened, engine), name="migrate")
            return opened.migration

    async def _migrate(self, opened: Opened, engine: EngineName) -> None:
        def report(**fields: object) -> None:
            assert opened.migration is not None
            opened.migration = opened.migration.model_copy(update=fields)

        manifest = opened.manifest.model_copy(update={"engine": engine})
        try:
            recall = await self.rebuild(
                opened.name, manifest, progress=lambda done, total: report(done=done, total=total)
            )
        except PlatformError as error:
            log.warning("move failed", collection=opened.name, engine=engine, reason=error.message)
            report(state="failed", error=error.message)
        except BaseException:
            report(state="failed", error="it broke off; the log says why")
            raise
        else:
            report(state="done", recall=recall)
