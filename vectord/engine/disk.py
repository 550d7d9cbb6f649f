"""The folder that holds the collections: what is whole is served, what is not is set aside."""

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import structlog
from pydantic import Field, StringConstraints, ValidationError

from schemas.base import Model
from schemas.vectors import EF_MAX, CollectionSpec, EngineName, RoleCatalogue
from services import files
from services.errors import InvalidRequest, Unavailable
from vectord.backends import ShardSpec
from vectord.backends.store import ENGINE_BYTES, FULL

log = structlog.get_logger(__name__)

DELETING_BYTES: Final = 512 * 1024
"""What the log of an engine may take for a page of deletions."""

TUNING: Final = "tuning.json"
NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
SHARD: Final = re.compile(r"^shard(-(edge|lance|qdrant)-[0-9a-f]{32})?$")


class Manifest(Model):
    """What a collection is. `spec` is as it was asked for; `engine` and `shard` say where the points are now.

    It is replaced as a whole when the points move to another shard: that is the moment of the move.
    """

    format: int = 1
    spec: CollectionSpec
    dimension: int
    model_digest: str | None
    engine: EngineName = "edge"
    shard: Annotated[str, StringConstraints(pattern=SHARD.pattern)] = "shard"

    def shard_spec(self, name: str) -> ShardSpec:
        return ShardSpec(
            dimension=self.dimension,
            distance=self.spec.distance,
            hybrid=self.spec.hybrid,
            payload_indexes=self.spec.payload_indexes,
            engine=self.engine,
            name=name,
            model_digest=self.model_digest,
            gated=self.spec.gated,
        )


class Tuning(Model):
    """What a benchmark chose."""

    ef: Annotated[int, Field(ge=1, le=EF_MAX)]


def check_name(name: str) -> str:
    """The name, before any path is made of it."""
    if NAME.fullmatch(name) is None:
        raise InvalidRequest(
            "a collection's name is 1-64 characters of a-z, 0-9, _ and -, and starts with a letter or digit",
            param="name",
        )
    return name


def disk_full(what: str = "the disk is full") -> Unavailable:
    """What is answered while there is no room. Once there is, no restart is needed."""
    return Unavailable(f"{what}; free space and send it again", code="disk_full", retry_after_s=5.0)


def refused(error: OSError) -> Unavailable:
    """What the disk said, for the caller, and in the log."""
    if error.errno in FULL:
        log.warning("disk is full", reason=str(error))
        return disk_full()
    log.error("disk refused", exc_info=error)
    return Unavailable(
        f"the disk refuses: {error.strerror}; see to the data folder of vectord, and send it again",
        code="storage_failed",
    )


def folder_name(engine: EngineName) -> str:
    """A name for a new shard's folder."""
    return f"shard-{engine}-{uuid.uuid4().hex}"


class Disk:
    """Collections as folders: `<name>/manifest.json` and the shard that it names.

    Names with a dot are ours: `.making-*` and `.deleting-*` are unfinished work, `.aside` keeps what was
    found broken.
    """

    def __init__(self, folder: Path, *, free_bytes_min: int) -> None:
        self.folder = folder
        self._free_bytes_min = free_bytes_min
        self._promised = 0
        self._roles = folder / "roles.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process alone: a second one would take our work for left-overs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            held = files.lock(self.folder / ".lock")
        except BlockingIOError as error:
            raise Unavailable(
                f"another vectord holds {self.folder}; stop it, or give this one another STILLHOUSE_DATA"
            ) from error
        with held:
            yield

    def check_writable(self) -> None:
        """Raise OSError unless files can be made here. A full disk is passed over: it can be read."""
        probe = self.folder / f".probe-{uuid.uuid4().hex}"
        try:
            probe.touch()
        except OSError as error:
            if error.errno not in FULL:
                raise
        else:
            probe.unlink()

    def check_free(self, more: int = 0) -> None:
        """Raise 503 `disk_full` unless `more` bytes can be written and the least that is kept free stays so.

        The engine writes to memory maps: a disk that fills up under it kills its process. So what it works
        with is kept free even where the setting says nothing.
        """
        self._check(more + self._promised + max(self._free_bytes_min, ENGINE_BYTES))

    @contextlib.contextmanager
    def room(self, more: int) -> Iterator[None]:
        """The same, and what others write meanwhile comes on top."""
        self.check_free(more)
        self._promised += more
        try:
            yield
        finally:
            self._promised -= more

    def check_deleting(self) -> None:
        """Raise 503 `disk_full` unless points can be deleted, which takes little."""
        self._check(DELETING_BYTES)

    def _check(self, wanted: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < wanted:
            raise disk_full(
                f"{free} bytes are free on the disk and {wanted} are needed; nothing of this request was kept"
            )

    # --- collections ---

    def shard_folder(self, name: str, manifest: Manifest) -> Path:
        return self.folder / check_name(name) / manifest.shard

    def settle(self, name: str, manifest: Manifest) -> None:
        """Name the shard that is the collection from now on. Raises OSError where the old one stays."""
        path = self.folder / check_name(name) / "manifest.json"
        try:
            files.replace(path, manifest.model_dump_json().encode())
        except OSError:
            if Manifest.model_validate_json(path.read_bytes()) != manifest:
                raise
            log.exception("manifest is in place, but may not survive a power loss", collection=name)

    def left_over(self, name: str, manifest: Manifest) -> list[Path]:
        """Shards that a move began and did not finish, or left behind."""
        inside = (self.folder / check_name(name)).iterdir()
        return [path for path in inside if SHARD.match(path.name) and path.name != manifest.shard]

    @contextlib.contextmanager
    def making(self, name: str, manifest: Manifest) -> Iterator[Path]:
        """Yield the folder to make the shard in; the collection exists once the block ends well."""
        draft = self.folder / f".making-{check_name(name)}-{uuid.uuid4().hex}"
        draft.mkdir()
        try:
            yield draft / "shard"
            files.replace(draft / "manifest.json", manifest.model_dump_json().encode())
            draft.rename(self.folder / name)
            files.sync_folder(self.folder)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise

    def retire(self, name: str) -> Path:
        """Take the collection away; its files, in the folder returned, are still to be removed."""
        away = self.folder / f".deleting-{check_name(name)}-{uuid.uuid4().hex}"
        (self.folder / name).rename(away)
        files.sync_folder(self.folder)
        return away

    def retired(self) -> list[Path]:
        """Deletions that were not finished."""
        return [path for path in sorted(self.folder.iterdir()) if path.name.startswith(".deleting-")]

    def scan(self) -> dict[str, Manifest]:
        """The collections there are. Everything half-made is set aside."""
        found = {}
        for path in sorted(self.folder.iterdir()):
            if path.name.startswith(".making-"):
                self._set_aside(path, "it was never finished")
            elif path.is_dir() and NAME.fullmatch(path.name) and (manifest := self._manifest(path)):
                found[path.name] = manifest
        return found

    def _manifest(self, path: Path) -> Manifest | None:
        """The manifest in a collection's folder, which is set aside where there is none."""
        try:
            return Manifest.model_validate_json((path / "manifest.json").read_bytes())
        except (OSError, ValidationError) as error:
            self._set_aside(path, f"its manifest is missing or broken: {type(error).__name__}")
            return None

    def _set_aside(self, path: Path, reason: str) -> None:
        aside = self.folder / ".aside"
        aside.mkdir(exist_ok=True)
        target = aside / f"{path.name.lstrip('.')}-{uuid.uuid4().hex}"
        path.rename(target)
        log.error("collection set aside", reason=reason, moved_to=str(target))

    def bytes_of(self, name: str) -> int:
        """Bytes that the collection takes on disk; files that vanish meanwhile count nothing."""
        total = 0
        for root, _, inside in os.walk(self.folder / check_name(name)):
            for file in inside:
                with contextlib.suppress(FileNotFoundError):
                    total += Path(root, file).stat().st_blocks * 512
        return total

    def read_ef(self, name: str) -> int | None:
        """What was chosen for the collection's searches, if anything was."""
        try:
            return Tuning.model_validate_json((self.folder / check_name(name) / TUNING).read_bytes()).ef
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:  # it serves as well without
            log.warning("tuning cannot be read", collection=name, reason=type(error).__name__)
            return None

    def write_ef(self, name: str, ef: int) -> None:
        files.replace(self.folder / check_name(name) / TUNING, Tuning(ef=ef).model_dump_json().encode())

    # --- roles ---

    def read_roles(self) -> RoleCatalogue:
        """The catalogue. Raises `Unavailable` when it cannot be read: guessing would open the gate."""
        try:
            return RoleCatalogue.model_validate_json(self._roles.read_bytes())
        except FileNotFoundError:
            return RoleCatalogue(roles=[])
        except (OSError, ValidationError) as error:
            raise Unavailable(
                f"{self._roles} cannot be read ({type(error).__name__}); restore it from a copy"
            ) from error

    def write_roles(self, catalogue: RoleCatalogue) -> None:
        files.replace(self._roles, catalogue.model_dump_json().encode())
