"""The collections that are open: made whole or not at all, used by many, written by one at a time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from weakref import WeakValueDictionary

import structlog

from schemas.vectors import Collection, CollectionSpec, EngineName
from services.errors import Conflict, InvalidRequest, NotFound, PlatformError, Unavailable
from vectord.backends import StoreError
from vectord.backends.store import ENGINE_BYTES
from vectord.engine.advice import advise
from vectord.engine.changes import Changes
from vectord.engine.disk import Disk, Manifest, check_name
from vectord.engine.embedding import Embedder
from vectord.engine.limits import Limits, at_most, check_path
from vectord.engine.metrics import Metrics
from vectord.engine.opened import Opened
from vectord.engine.runner import Runner
from vectord.engine.shards import Fill, Shards
from vectord.engine.upkeep import Upkeep

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Broken:
    """A collection that lies on the disk and does not open, and why."""

    manifest: Manifest
    error: Unavailable


class Collections:
    """The registry, and the life of what is in it.

    A collection whose shard does not open is kept in `broken` and its folder is left alone: its routes
    answer 503 until `reopen` succeeds, the others work.
    """

    def __init__(
        self,
        disk: Disk,
        shards: Shards,
        embedder: Embedder,
        *,
        runner: Runner,
        limits: Limits,
        metrics: Metrics,
        upkeep: Upkeep,
        changes: Changes,
    ) -> None:
        self._disk = disk
        self._shards = shards
        self._embedder = embedder
        self._runner = runner
        self._limits = limits
        self._metrics = metrics
        self._changes = changes
        self.upkeep = upkeep
        self._open: dict[str, Opened] = {}
        self._making: set[str] = set()
        self.broken: dict[str, Broken] = {}
        self._changing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def open_all(self) -> None:
        for folder in await self._runner.run(self._disk.retired):
            await self._shards.clear(folder, sorted(folder.glob("shard*")))
        for name, manifest in (await self._runner.run(self._disk.scan)).items():
            for folder in await self._runner.run(self._disk.left_over, name, manifest):
                log.warning("unfinished move removed", collection=name)
                await self._shards.clear(folder, [folder])
            with contextlib.suppress(Unavailable):
                await self._open_shard(name, manifest)
        log.info("collections open", count=len(self._open), broken=len(self.broken))

    async def reopen(self) -> None:
        """Try again to open what could not be: a server, or room on the disk, may be back."""
        for name in list(self.broken):
            async with self._changes_to(name):
                if (broken := self.broken.get(name)) is not None:
                    with contextlib.suppress(Unavailable):
                        await self._open_shard(name, broken.manifest)

    async def _open_shard(self, name: str, manifest: Manifest) -> None:
        """Open a collection that is on the disk. Where that fails it is broken; raises `Unavailable`."""
        try:
            shard = await self._runner.run(self._shards.open, name, manifest)
        except Unavailable as error:
            self.broken[name] = Broken(manifest, error)
            raise
        self.broken.pop(name, None)
        opened = Opened(name, manifest, shard, self._shards.durable(manifest))
        opened.ef = self._disk.read_ef(name) or self._limits.search_ef
        self._open[name] = opened
        self._metrics.collections.set(len(self._open))
        # Nobody knows how much was written since the last rebuild; one that is not due does nothing.
        with contextlib.suppress(PlatformError):  # a server that is away now may come back
            self.upkeep.wrote(opened, (await self._runner.run(shard.info)).points)

    def _changes_to(self, name: str) -> asyncio.Lock:
        """Held by the one who makes, opens or deletes a collection of this name."""
        lock = self._changing.get(name)
        if lock is None:
            lock = self._changing[name] = asyncio.Lock()
        return lock

    @contextlib.contextmanager
    def use(self, name: str, *, param: str | None = None) -> Iterator[Opened]:
        """The collection, kept open for the length of the block. Raises 404, or 503 for a broken one."""
        check_name(name)
        if (broken := self.broken.get(name)) is not None:
            raise Unavailable(broken.error.message, code=broken.error.code)
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
            async with self._changes_to(name):
                if name not in self._open and name not in self.broken:
                    with self._place(name):
                        tell = self._changes.created(name, manifest)
                        await self._runner.run(self._shards.make, name, manifest, tell)
                        await self._open_made(name, manifest)
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
        await asyncio.to_thread(self._shards.check, engine)

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

    async def make_filled(self, name: str, manifest: Manifest, fill: Fill, source: dict[str, str]) -> None:
        """Make a collection that is there only once `fill`, called on a thread, has put its points in.

        `source` says where they come from. Raises 409 where the name is taken.
        """
        check_name(name)
        self._check(manifest.spec)
        at_most("dimension", manifest.dimension, self._limits.dimension_max, param="dimension")
        await self.check_engine(manifest.engine)
        with contextlib.ExitStack() as stack:
            async with self._changes_to(name):
                if name in self._open or name in self.broken:
                    raise Conflict(
                        f"the collection {name!r} exists; delete it first", code="collection_exists"
                    )
                stack.enter_context(self._place(name))
            tell = self._changes.restored(name, manifest, source)
            await self._runner.run(self._shards.make, name, manifest, tell, fill)
            await self._open_made(name, manifest)

    @contextlib.contextmanager
    def _place(self, name: str) -> Iterator[None]:
        """A place among the collections for one that is being made. Raises 409 where there is none."""
        self._disk.check_free(ENGINE_BYTES)
        if name in self._making:
            raise Conflict(f"the collection {name!r} is being made already", code="collection_exists")
        if len(self._open) + len(self.broken) + len(self._making) >= self._limits.collections_max:
            raise Conflict(
                f"there are {self._limits.collections_max} collections already, which is the limit;"
                " delete one first, or raise VECTORD_COLLECTIONS_MAX",
                code="collections_max",
            )
        self._making.add(name)
        try:
            yield
        finally:
            self._making.discard(name)

    async def _open_made(self, name: str, manifest: Manifest) -> None:
        await self._open_shard(name, manifest)
        log.info("collection made", collection=name, dimension=manifest.dimension)

    async def delete(self, name: str) -> None:
        """Take it away once those who use it are done; new ones get 404 from now on."""
        async with self._changes_to(name):
            with self.use(name) as opened, opened.alone():
                await self._runner.run(self._changes.deleted(name, opened.manifest))
                opened.deleted = True
                del self._open[name]
            self._metrics.collections.set(len(self._open))
            await opened.users.idle.wait()
            await self._remove(opened)
        log.info("collection deleted", collection=name)

    async def _remove(self, opened: Opened) -> None:
        """Take the files of a collection away that nobody uses any more."""
        try:
            await self._runner.run(opened.shard.close)
        except PlatformError as error:  # it is on its way out
            log.warning("shard not closed", collection=opened.name, reason=error.message)
        try:
            away = await self._runner.run(self._disk.retire, opened.name)
        except Unavailable as error:
            self.broken[opened.name] = Broken(opened.manifest, error)  # it is there still
            raise
        await self._shards.clear(away, sorted(away.glob("shard*")))

    async def describe_all(self) -> list[Collection]:
        described = []
        for name in sorted(self._open):
            with (
                contextlib.suppress(PlatformError),
                self.use(name) as opened,
            ):  # one that fails hides no other
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
        await self._runner.run(self._changes.tuned(opened.name, opened.ef, ef))
        await self._runner.run(self._disk.write_ef, opened.name, ef)
        opened.ef = ef

    async def bytes_of(self, opened: Opened) -> int:
        """Bytes that the collection takes on disk."""
        return await self._runner.run(self._disk.bytes_of, opened.name)

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
