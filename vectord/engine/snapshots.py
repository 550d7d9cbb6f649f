"""Collections into files and out of them again: made while reads go on, restored whole or not at all."""

import asyncio
import contextlib
import datetime as dt
import re
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final

import structlog

from schemas.vectors import Collection, RestoreRequest, Snapshot, SnapshotList
from services import files
from services.errors import Conflict, Forbidden, NotFound
from vectord.backends import Page, Record, Shard, Where
from vectord.engine.archive import Reader, SnapshotBroken, Writer
from vectord.engine.collections import Collections, first_engine
from vectord.engine.disk import NAME, Disk, Manifest, check_name, refused
from vectord.engine.gate import Limited
from vectord.engine.limits import Limits
from vectord.engine.opened import Opened
from vectord.engine.runner import Runner

log = structlog.get_logger(__name__)

PAGE: Final = 500
DRAFT: Final = ".making-"
SUFFIX: Final = ".zip"
KEY: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,127}")
"""What the name of a snapshot is, before the suffix: others cannot be asked for."""


class Snapshots:
    """The snapshots of every collection, in `.snapshots/<collection>/<snapshot>.zip`.

    They outlive the collection. A file put there by hand is one as well.
    """

    def __init__(self, disk: Disk, collections: Collections, *, runner: Runner, limits: Limits) -> None:
        self._disk = disk
        self._folder = disk.folder / ".snapshots"
        self._collections = collections
        self._runner = runner
        self._limits = limits
        self._making = asyncio.Lock()
        self._deleting = asyncio.Lock()

    async def start(self) -> None:
        """Remove what a death left half-written."""
        await self._runner.run(self._tidy)

    async def create(self, name: str, limited: Limited) -> Snapshot:
        """Write a collection to a file, as it is at this moment: reads go on, writes wait for the end."""
        async with self._making, self._collections.write(name) as opened:
            _refuse_limited(limited, gated=opened.spec.gated)
            await self._check_room(name)
            created = dt.datetime.now(dt.UTC).replace(microsecond=0)
            key = f"{created:%Y%m%dt%H%M%S}-{secrets.token_hex(3)}"
            path = self._path(name, key)
            with _told():
                file = await self._runner.run(self._draft, name)
                with file:
                    await self._write(file, opened, path, created)
        described = await self._runner.run(self._describe, path)
        log.info("snapshot made", collection=name, points=described.points, bytes=described.bytes)
        return described

    async def _write(self, file: IO[bytes], opened: Opened, path: Path, created: dt.datetime) -> None:
        draft = Path(str(file.name))
        try:
            writer = Writer(file)
            cursor: str | None = None
            while True:
                self._disk.check_free()
                page = await self._runner.run(_page, opened, cursor)
                await self._runner.run(writer.add, page.records)
                cursor = page.cursor
                if cursor is None:
                    break
            await self._runner.run(writer.finish, opened.name, opened.manifest, created)
            await self._runner.run(files.put_in_place, file, draft, path)
        except BaseException:
            _remove(draft)
            raise

    async def all(self, name: str, limited: Limited) -> SnapshotList:
        """The snapshots of a collection, oldest first. Those that are broken are logged and left out."""
        check_name(name)
        found = await self._runner.run(self._readable, name, limited)
        if not found:
            with self._collections.use(name) as opened:
                _refuse_limited(limited, gated=opened.spec.gated)
        return SnapshotList(snapshots=found)

    async def file(self, name: str, key: str, limited: Limited) -> Path:
        """Where the snapshot lies, once it is known to be one that the caller may have."""
        check_name(name)
        return await self._runner.run(self._admitted, name, key, limited)

    async def delete(self, name: str, key: str, limited: Limited) -> Snapshot:
        """Delete a snapshot; the answer is what it was."""
        async with self._deleting:
            try:
                path = await self.file(name, key, limited)
                described = await self._runner.run(self._describe, path)
            except (
                SnapshotBroken
            ) as error:  # whose points it holds cannot be told, so who may delete it neither
                raise SnapshotBroken(
                    f"{error.message}; remove vectors/.snapshots/{name}/{key}{SUFFIX} by hand"
                ) from error
            await self._runner.run(path.unlink)
        return described

    async def restore(self, name: str, request: RestoreRequest, limited: Limited) -> Collection:
        """Make the collection `name`, which must not exist, of a snapshot.

        Raises 400 `snapshot_broken`, and makes nothing, when the file is not whole.
        """
        check_name(name)
        path = await self.file(request.collection or name, request.snapshot, limited)
        with await self._runner.run(Reader, path, self._limits) as reader:
            await self._runner.run(reader.check_members)
            contents = reader.contents
            spec = contents.spec
            if request.engine is not None:
                spec = spec.model_copy(update={"engine": request.engine})
            manifest = Manifest(
                spec=spec,
                dimension=contents.dimension,
                model_digest=contents.model_digest,
                engine=first_engine(spec),
            )
            with _told():
                await self._collections.make_filled(
                    name,
                    manifest,
                    lambda shard: self._fill(shard, reader),
                    {
                        "collection": request.collection or name,
                        "snapshot": request.snapshot,
                        "sha256": reader.sha256,
                    },
                )
        with self._collections.use(name) as opened:
            return await self._collections.describe(opened)

    def _fill(self, shard: Shard, reader: Reader) -> None:
        for records in reader.records():
            for start in range(0, len(records), PAGE):
                self._disk.check_free()
                part: Sequence[Record] = records[start : start + PAGE]
                shard.upsert(part)
        points = shard.info().points
        if points != reader.contents.points:
            raise SnapshotBroken(f"it holds {points} points; its manifest says {reader.contents.points}")

    @contextlib.contextmanager
    def receiving(self) -> Iterator[IO[bytes]]:
        """A file to receive a snapshot in; it is gone at the end of the block, unless `keep` took it."""
        self._disk.check_free()
        with _told():
            self._folder.mkdir(exist_ok=True)
            path = self._folder / f"{DRAFT}{secrets.token_hex(8)}"
            try:
                with path.open("xb") as file:
                    yield file
            finally:
                path.unlink(missing_ok=True)

    async def keep(self, name: str, key: str, file: IO[bytes], limited: Limited) -> Snapshot:
        """Take a received file for a snapshot of `name`, if every member is what it should be."""
        draft, path = Path(str(file.name)), self._path(name, key)
        async with self._making:
            await self._check_room(name)
            if await self._runner.run(path.exists):
                raise Conflict(f"there is a snapshot {key!r} of {name!r} already", code="snapshot_exists")
            await self._runner.run(file.flush)
            await self._runner.run(self._verify, draft, limited)
            await self._runner.run(path.parent.mkdir, exist_ok=True)
            await self._runner.run(files.put_in_place, file, draft, path)
        return await self._runner.run(self._describe, path)

    def _verify(self, path: Path, limited: Limited) -> None:
        with Reader(path, self._limits) as reader:
            _refuse_limited(limited, gated=reader.contents.spec.gated)
            reader.check_members()
            for _ in reader.records():
                pass

    async def _check_room(self, name: str) -> None:
        self._disk.check_free()
        held = len(await self._runner.run(self._paths, name))
        if held >= self._limits.snapshots_max:
            raise Conflict(
                f"there are {held} snapshots of {name!r} already, which is the limit; delete one, or raise"
                " VECTORD_SNAPSHOTS_MAX",
                code="snapshots_max",
            )

    # --- files ---

    def _path(self, name: str, key: str) -> Path:
        return self._folder / check_name(name) / f"{key}{SUFFIX}"

    def _draft(self, name: str) -> IO[bytes]:
        folder = self._folder / check_name(name)
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / f"{DRAFT}{secrets.token_hex(8)}").open("xb")

    def _paths(self, name: str) -> list[Path]:
        folder = self._folder / check_name(name)
        return sorted(
            path for path in folder.glob(f"*{SUFFIX}") if path.is_file() and KEY.fullmatch(path.stem)
        )

    def _readable(self, name: str, limited: Limited) -> list[Snapshot]:
        found = []
        for path in self._paths(name):
            try:
                with Reader(path, self._limits) as reader:
                    _refuse_limited(limited, gated=reader.contents.spec.gated)
                    found.append(_described(path, reader))
            except SnapshotBroken as error:
                log.warning("snapshot is broken", collection=name, snapshot=path.stem, reason=error.message)
        return found

    def _admitted(self, name: str, key: str, limited: Limited) -> Path:
        path = self._path(name, key)
        if not path.is_file():
            raise NotFound(f"there is no snapshot {key!r} of {name!r}", code="snapshot_not_found")
        with Reader(path, self._limits) as reader:
            _refuse_limited(limited, gated=reader.contents.spec.gated)
        return path

    def _describe(self, path: Path) -> Snapshot:
        with Reader(path, self._limits) as reader:
            return _described(path, reader)

    def _tidy(self) -> None:
        if not self._folder.is_dir():
            return
        for path in [*self._folder.glob(f"{DRAFT}*"), *self._folder.glob(f"*/{DRAFT}*")]:
            path.unlink()
        for folder in self._folder.iterdir():
            if folder.is_dir() and NAME.fullmatch(folder.name) and not any(folder.iterdir()):
                folder.rmdir()


def _page(opened: Opened, cursor: str | None) -> Page:
    return opened.shard.scroll(Where(), limit=PAGE, cursor=cursor, with_vector=True)


def _described(path: Path, reader: Reader) -> Snapshot:
    contents = reader.contents
    return Snapshot(
        name=path.stem,
        collection=contents.collection,
        created=contents.created,
        points=contents.points,
        bytes=path.stat().st_size,
        sha256=reader.sha256,
    )


def _refuse_limited(limited: Limited, *, gated: bool) -> None:
    if limited is not None and gated:
        raise Forbidden(
            "this key is limited to some job roles: a snapshot of a gated collection holds other roles'"
            " points",
            code="role_forbidden",
        )


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Name what the disk says; nothing half-written is left."""
    try:
        yield
    except OSError as error:
        raise refused(error) from error
