"""The collections that are open: made whole or not at all, used by many, written by one at a time."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

import structlog

from schemas.vectors import Collection, CollectionSpec, EngineName, Migration
from services.errors import Conflict, InvalidRequest, NotFound, PlatformError, Unavailable
from services.tasks import TaskSet
from vectord.backends import EngineMissing, Engines, EngineUnreachable, Shard, StoreError
from vectord.engine.advice import advise
from vectord.engine.disk import Disk, Manifest, check_name, folder_name
from vectord.engine.embedding import Embedder
from vectord.engine.limits import Limits, at_most, check_path
from vectord.engine.metrics import Metrics
from vectord.engine.rebuild import Copy, Progress, Recording, Touched, Transform
from vectord.engine.runner import Runner

log = structlog.get_logger(__name__)

SETTLE_S: Final = 0.5
SETTLE_FACTOR: Final = 20
"""So many times the points after which an index is due are written, at most, before it is made."""


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
    migration: Migration | None = None
    ef: int | None = None
    """How widely searches look that do not say it themselves; None leaves it to the store."""
    built_s: float | None = None
    """Seconds that the last rebuild of the index took, if there was one."""

    @property
    def spec(self) -> CollectionSpec:
        return self.manifest.spec

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


class Collections:
    """The registry, and the life of what is in it.

    A collection whose shard does not open is kept in `broken` and its folder is left alone: its routes
    answer 503, the others work.
    """

    def __init__(
        self,
        disk: Disk,
        store: Engines,
        embedder: Embedder,
        *,
        runner: Runner,
        limits: Limits,
        metrics: Metrics,
        tasks: TaskSet,
    ) -> None:
        self._disk = disk
        self._store = store
        self._embedder = embedder
        self._runner = runner
        self._limits = limits
        self._metrics = metrics
        self._tasks = tasks
        self._open: dict[str, Opened] = {}
        self._reserved: set[str] = set()
        self.broken: dict[str, str] = {}
        self._changing = asyncio.Lock()

    async def open_all(self) -> None:
        for folder in await self._runner.run(self._disk.retired):
            await self._clear(folder, sorted(folder.glob("shard*")))
        for name, manifest in (await self._runner.run(self._disk.scan)).items():
            for folder in await self._runner.run(self._disk.left_over, name, manifest):
                log.warning("unfinished move removed", collection=name)
                await self._clear(folder, [folder])
            try:
                shard = await self._runner.run(self._open_shard, name, manifest)
            except Unavailable as error:
                self.broken[name] = error.message
                continue
            opened = Opened(name, manifest, shard, self._store.durable(manifest.engine))
            self._add(opened)
            # Nobody knows how much was written since the last rebuild; one that is not due does nothing.
            with contextlib.suppress(Unavailable):  # a server that is away now may come back
                info = await self._runner.run(shard.info)
                self.wrote(opened, info.points)
        log.info("collections open", count=len(self._open), broken=len(self.broken))

    def _open_shard(self, name: str, manifest: Manifest) -> Shard:
        try:
            return self._store.open(self._disk.shard_folder(name, manifest), manifest.shard_spec(name))
        except (EngineMissing, EngineUnreachable) as error:
            raise Unavailable(f"the collection {name!r} cannot be opened: {error}") from error
        except StoreError as error:
            log.exception("collection cannot be opened", collection=name)
            raise Unavailable(f"the collection {name!r} cannot be opened; the log says why") from error

    def _add(self, opened: Opened) -> None:
        opened.ef = self._disk.read_ef(opened.name) or self._limits.search_ef
        self._open[opened.name] = opened
        self._metrics.collections.set(len(self._open))

    @contextlib.contextmanager
    def use(self, name: str, *, param: str | None = None) -> Iterator[Opened]:
        """The collection, kept open for the length of the block. Raises 404, or 503 for a broken one."""
        check_name(name)
        if name in self.broken:
            raise Unavailable(self.broken[name])
        opened = self._open.get(name)
        if opened is None:
            raise NotFound(f"there is no collection {name!r}", code="collection_not_found", param=param)
        with opened.in_use():
            yield opened

    @contextlib.asynccontextmanager
    async def write(self, name: str) -> AsyncIterator[Opened]:
        """The same, as its only writer."""
        with self.use(name) as opened:
            async with opened.writer:
                yield opened

    async def create(self, name: str, spec: CollectionSpec) -> Collection:
        """Make the collection, or find that it is there already just so."""
        check_name(name)
        self._check(spec)
        if name not in self._open and name not in self.broken:
            manifest = await self._manifest(spec)
            async with self._changing:
                if name not in self._open and name not in self.broken:
                    await self._make(name, manifest)
        with self.use(name) as opened:
            if not _is_same(spec, opened.manifest):
                raise Conflict(
                    f"the collection {name!r} exists with another specification"
                    f" (GET /v1/collections/{name} shows it)",
                    code="collection_exists",
                )
            return await self.describe(opened)

    def _check(self, spec: CollectionSpec) -> None:
        for key in spec.payload_indexes:
            check_path(key, param="payload_indexes")
        if spec.dimension is not None:
            at_most("dimension", spec.dimension, self._limits.dimension_max, param="dimension")

    async def check_engine(self, engine: EngineName) -> None:
        """Raise 400 for an engine that is not installed or not configured here."""
        try:
            await asyncio.to_thread(self._store.check, engine)
        except EngineMissing as error:
            raise InvalidRequest(str(error), code="engine_missing", param="engine") from error

    async def _manifest(self, spec: CollectionSpec) -> Manifest:
        engine = first_engine(spec)
        await self.check_engine(engine)
        if spec.model is None:
            assert spec.dimension is not None
            return Manifest(spec=spec, dimension=spec.dimension, model_digest=None, engine=engine)
        dimension, digest = await self._embedder.probe(spec.model)
        if spec.dimension not in (None, dimension):
            raise InvalidRequest(
                f"{spec.model!r} makes vectors of {dimension} numbers, not {spec.dimension}",
                param="dimension",
            )
        at_most("dimension", dimension, self._limits.dimension_max, param="model")
        return Manifest(spec=spec, dimension=dimension, model_digest=digest, engine=engine)

    async def make_filled(self, name: str, manifest: Manifest, fill: Callable[[Shard], None]) -> None:
        """Make a collection that is there only once `fill`, called on a thread, has put its points in.

        Raises 409 where the name is taken.
        """
        check_name(name)
        self._check(manifest.spec)
        at_most("dimension", manifest.dimension, self._limits.dimension_max, param="dimension")
        await self.check_engine(manifest.engine)
        async with self._changing:
            if name in self._open or name in self.broken:
                raise Conflict(f"the collection {name!r} exists; delete it first", code="collection_exists")
            self._refuse_more(name)
            self._reserved.add(name)
        try:
            await self._runner.run(self._make_on_disk, name, manifest, fill)
            await self._open_made(name, manifest)
        finally:
            self._reserved.discard(name)

    async def _make(self, name: str, manifest: Manifest) -> None:
        self._refuse_more(name)
        await self._runner.run(self._make_on_disk, name, manifest)
        await self._open_made(name, manifest)

    def check_free(self) -> None:
        """Raise 503 `disk_full` unless there is room to write."""
        self._disk.check_free(self._limits.disk_free_bytes_min)

    def _refuse_more(self, name: str) -> None:
        self.check_free()
        if name in self._reserved:
            raise Conflict(f"the collection {name!r} is being restored", code="collection_exists")
        if len(self._open) + len(self.broken) + len(self._reserved) >= self._limits.collections_max:
            raise Conflict(
                f"there are {self._limits.collections_max} collections already, which is the limit;"
                " delete one first",
                code="collections_max",
            )

    async def _open_made(self, name: str, manifest: Manifest) -> None:
        shard = await self._runner.run(self._open_shard, name, manifest)
        self._add(Opened(name, manifest, shard, self._store.durable(manifest.engine)))
        log.info("collection made", collection=name, dimension=manifest.dimension)

    def _make_on_disk(
        self, name: str, manifest: Manifest, fill: Callable[[Shard], None] | None = None
    ) -> None:
        with self._disk.making(name, manifest) as folder:
            self._store.create(folder, manifest.shard_spec(name))
            if fill is not None:
                shard = self._store.open(folder, manifest.shard_spec(name))
                try:
                    fill(shard)
                    shard.flush()
                finally:
                    shard.close()

    async def delete(self, name: str) -> None:
        """Take it away once those who use it are done; new ones get 404 from now on."""
        async with self._changing:
            with self.use(name) as opened:
                _refuse_moving(opened)
                del self._open[name]
            self._metrics.collections.set(len(self._open))
            await opened.users.idle.wait()
            await self._runner.run(opened.shard.close)
            away = await self._runner.run(self._disk.retire, name)
            await self._clear(away, sorted(away.glob("shard*")))
        log.info("collection deleted", collection=name)

    async def _clear(self, folder: Path, shards: list[Path]) -> None:
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

    # --- another shard ---

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
        with self.use(name) as opened:
            _refuse_moving(opened)
            self.check_free()
            opened.moving = True
            try:
                old, users, recall = await self._move(opened, manifest, progress, transform)
            finally:
                opened.moving = False
        await users.idle.wait()
        await self._runner.run(old.close)
        for folder in await self._runner.run(self._disk.left_over, name, opened.manifest):
            await self._clear(folder, [folder])
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
            await self._runner.run(self._store.create, folder, manifest.shard_spec(name))
            target = await self._runner.run(self._open_shard, name, manifest)
            copy = Copy(source, target, touched, self._runner.run, progress, transform)
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
                # On this thread, with nothing awaited before it is known everywhere: no half-made move.
                self._disk.settle(name, manifest)
                users, opened.users = opened.users, Users()
                opened.manifest, opened.shard = manifest, target
                opened.durable = self._store.durable(manifest.engine)
        except asyncio.CancelledError:
            opened.shard = source  # the daemon ends, perhaps in a call; the next start clears up
            raise
        except BaseException:
            opened.shard = source
            if target is not None:
                await self._runner.run(target.close)
            await self._clear(folder, [folder])
            raise
        log.info("collection moved", collection=name, engine=manifest.engine, points=copy.done)
        return source, users, recall

    def migrate(self, name: str, engine: EngineName) -> Migration:
        """Begin to move a collection to another engine; `describe` says how far it is."""
        with self.use(name) as opened:
            _refuse_moving(opened)
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

    async def describe_all(self) -> list[Collection]:
        described = []
        for name in sorted(self._open):
            with contextlib.suppress(NotFound, Unavailable), self.use(name) as opened:
                described.append(await self.describe(opened))
        return described

    async def describe(self, opened: Opened) -> Collection:
        info = await self._runner.run(opened.shard.info)
        size = await self._runner.run(self._disk.bytes_of, opened.name)
        spec = opened.spec
        return Collection(
            name=opened.name,
            count=info.points,
            dimension=opened.manifest.dimension,
            model=spec.model,
            model_digest=opened.manifest.model_digest,
            distance=spec.distance,
            engine=opened.manifest.engine,
            gated=spec.gated,
            hybrid=spec.hybrid,
            payload_indexes=spec.payload_indexes,
            index="building" if opened.optimizing else "ready",
            bytes=size,
            advice=advise(opened.manifest, info.points, self._limits) if spec.engine == "auto" else None,
            migration=opened.migration,
        )

    async def tune(self, opened: Opened, ef: int) -> None:
        """Have searches that do not say it themselves look so widely, from now on and after a restart."""
        await self._runner.run(self._disk.write_ef, opened.name, ef)
        opened.ef = ef

    async def bytes_of(self, opened: Opened) -> int:
        """Bytes that the collection takes on disk."""
        return await self._runner.run(self._disk.bytes_of, opened.name)

    def wrote(self, opened: Opened, points: int) -> None:
        """Count writes, and have the index rebuilt when there were enough since the last time."""
        opened.written += points
        opened.commits += 1
        if self._is_due(opened) and not opened.optimizing:
            opened.optimizing = True
            self._tasks.start(self._optimize(opened), name="optimize")

    def _is_due(self, opened: Opened) -> bool:
        # Every write to a Lance dataset is a commit, with files of its own.
        many = opened.manifest.engine == "lance" and opened.commits >= self._limits.optimize_after_commits
        return many or opened.written >= self._limits.optimize_after_points

    async def _settled(self, opened: Opened) -> None:
        """Return when writing pauses: an index made in the midst of a load would be made again at its end.

        A load without end is not waited for either.
        """
        most = SETTLE_FACTOR * self._limits.optimize_after_points
        commits = -1
        while commits != opened.commits and opened.written < most:
            commits = opened.commits
            await asyncio.sleep(SETTLE_S)

    async def _optimize(self, opened: Opened) -> None:
        try:
            while self._is_due(opened):
                await self._settled(opened)
                if self._open.get(opened.name) is not opened:  # it was deleted meanwhile
                    return
                await self._optimize_once(opened)
        finally:
            opened.optimizing = False

    async def _optimize_once(self, opened: Opened) -> None:
        with opened.in_use():
            try:  # a rebuild works on a copy
                size = await self._runner.run(self._disk.bytes_of, opened.name)
                self._disk.check_free(size + self._limits.disk_free_bytes_min)
            except Unavailable as error:
                log.warning("index not rebuilt", collection=opened.name, reason=error.message)
                opened.written = opened.commits = 0  # it is tried again after as many writes
                return
            written, commits, started = opened.written, opened.commits, time.perf_counter()
            await self._runner.run(opened.shard.optimize)
            opened.written -= written
            opened.commits -= commits
            seconds = time.perf_counter() - started
            opened.built_s = round(seconds, 3)
            self._metrics.optimize_seconds.observe(seconds)
            log.info("index rebuilt", collection=opened.name, duration_ms=round(seconds * 1000, 1))

    def close(self) -> None:
        """Flush and close what is open. Nothing may be under way any more."""
        for opened in self._open.values():
            try:
                opened.shard.flush()
                opened.shard.close()
            except StoreError:
                log.exception("collection did not close well", collection=opened.name)
        self._open.clear()


def first_engine(spec: CollectionSpec) -> EngineName:
    """The engine that a collection begins with; `auto` says later when another would be better."""
    return "edge" if spec.engine == "auto" else spec.engine


def _refuse_moving(opened: Opened) -> None:
    if opened.moving:
        raise Conflict(
            f"the collection {opened.name!r} is being moved or rebuilt; wait until that has ended",
            code="collection_moving",
        )


def _is_same(spec: CollectionSpec, manifest: Manifest) -> bool:
    """Whether the specification describes the collection.

    Naming the dimension that the model has, or not, is the same; so is naming the engine that the collection
    was made with, or the one that it has moved to.
    """
    made = manifest.spec
    same: dict[str, object] = {}
    if spec.engine in (made.engine, manifest.engine):
        same["engine"] = made.engine
    if made.model is not None and spec.dimension in (None, manifest.dimension):
        same["dimension"] = made.dimension
    return spec.model_copy(update=same) == made
