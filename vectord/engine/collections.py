"""The collections that are open: made whole or not at all, used by many, written by one at a time."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import structlog

from schemas.vectors import Collection, CollectionSpec
from services.errors import Conflict, InvalidRequest, NotFound, Unavailable
from services.tasks import TaskSet
from vectord.backends import Shard, Store, StoreError
from vectord.engine.disk import Disk, Manifest, check_name
from vectord.engine.embedding import Embedder
from vectord.engine.limits import Limits, at_most, check_path
from vectord.engine.metrics import Metrics
from vectord.engine.runner import Runner

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Opened:
    """A collection in use. `writer` is held by the one that writes."""

    name: str
    manifest: Manifest
    shard: Shard
    writer: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    written: int = 0
    optimizing: bool = False
    ef: int | None = None
    """How widely searches look that do not say it themselves; None leaves it to the store."""

    @property
    def spec(self) -> CollectionSpec:
        return self.manifest.spec

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Hold the shard open for the length of a block."""
        self.users += 1
        self.idle.clear()
        try:
            yield
        finally:
            self.users -= 1
            if self.users == 0:
                self.idle.set()


class Collections:
    """The registry, and the life of what is in it.

    A collection whose shard does not open is kept in `broken` and its folder is left alone: its routes
    answer 503, the others work.
    """

    def __init__(
        self,
        disk: Disk,
        store: Store,
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
        self.broken: dict[str, str] = {}
        self._changing = asyncio.Lock()

    async def open_all(self) -> None:
        for name, manifest in (await self._runner.run(self._disk.scan)).items():
            try:
                shard = await self._runner.run(self._open_shard, name, manifest)
            except Unavailable as error:
                self.broken[name] = error.message
                continue
            opened = Opened(name, manifest, shard)
            self._add(opened)
            # Nobody knows how much was written since the last rebuild; one that is not due does nothing.
            info = await self._runner.run(shard.info)
            self.wrote(opened, info.points)
        log.info("collections open", count=len(self._open), broken=len(self.broken))

    def _open_shard(self, name: str, manifest: Manifest) -> Shard:
        try:
            return self._store.open(self._disk.shard_folder(name), manifest.shard_spec())
        except StoreError as error:
            log.exception("collection cannot be opened", collection=name)
            raise Unavailable(f"the collection {name!r} cannot be opened; the log says why") from error

    def _add(self, opened: Opened) -> None:
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
            if _settled(spec, opened.manifest) != _settled(opened.spec, opened.manifest):
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

    async def _manifest(self, spec: CollectionSpec) -> Manifest:
        if spec.model is None:
            assert spec.dimension is not None
            return Manifest(spec=spec, dimension=spec.dimension, model_digest=None)
        dimension, digest = await self._embedder.probe(spec.model)
        if spec.dimension not in (None, dimension):
            raise InvalidRequest(
                f"{spec.model!r} makes vectors of {dimension} numbers, not {spec.dimension}",
                param="dimension",
            )
        at_most("dimension", dimension, self._limits.dimension_max, param="model")
        return Manifest(spec=spec, dimension=dimension, model_digest=digest)

    async def _make(self, name: str, manifest: Manifest) -> None:
        if len(self._open) + len(self.broken) >= self._limits.collections_max:
            raise Conflict(
                f"there are {self._limits.collections_max} collections already, which is the limit;"
                " delete one first",
                code="collections_max",
            )
        await self._runner.run(self._make_on_disk, name, manifest)
        shard = await self._runner.run(self._open_shard, name, manifest)
        self._add(Opened(name, manifest, shard))
        log.info("collection made", collection=name, dimension=manifest.dimension)

    def _make_on_disk(self, name: str, manifest: Manifest) -> None:
        with self._disk.making(name, manifest) as folder:
            self._store.create(folder, manifest.shard_spec())

    async def delete(self, name: str) -> None:
        """Take it away once those who use it are done; new ones get 404 from now on."""
        async with self._changing:
            with self.use(name) as opened:
                del self._open[name]
            self._metrics.collections.set(len(self._open))
            await opened.idle.wait()
            await self._runner.run(opened.shard.close)
            await self._runner.run(self._disk.remove, name)
        log.info("collection deleted", collection=name)

    async def describe_all(self) -> list[Collection]:
        described = []
        for name in sorted(self._open):
            with contextlib.suppress(NotFound), self.use(name) as opened:
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
            engine=spec.engine,
            gated=spec.gated,
            hybrid=spec.hybrid,
            payload_indexes=spec.payload_indexes,
            index="building" if opened.optimizing else "ready",
            bytes=size,
        )

    def wrote(self, opened: Opened, points: int) -> None:
        """Count writes, and have the index rebuilt when there were enough since the last time."""
        opened.written += points
        if opened.written >= self._limits.optimize_after_points and not opened.optimizing:
            opened.optimizing = True
            self._tasks.start(self._optimize(opened), name="optimize")

    async def _optimize(self, opened: Opened) -> None:
        try:
            with opened.in_use():
                written, started = opened.written, time.perf_counter()
                await self._runner.run(opened.shard.optimize)
                opened.written -= written
                seconds = time.perf_counter() - started
                self._metrics.optimize_seconds.observe(seconds)
                log.info("index rebuilt", collection=opened.name, duration_ms=round(seconds * 1000, 1))
        finally:
            opened.optimizing = False

    def close(self) -> None:
        """Flush and close what is open. Nothing may be under way any more."""
        for opened in self._open.values():
            try:
                opened.shard.flush()
                opened.shard.close()
            except StoreError:
                log.exception("collection did not close well", collection=opened.name)
        self._open.clear()


def _settled(spec: CollectionSpec, manifest: Manifest) -> CollectionSpec:
    """The specification with the dimension that it led to, so that naming it or not is the same."""
    if spec.model is None or spec.dimension is not None:
        return spec
    return spec.model_copy(update={"dimension": manifest.dimension})
