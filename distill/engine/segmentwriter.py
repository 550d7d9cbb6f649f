"""The end of the log that one writer appends to: a group of lines is in it whole, or not at all."""

import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from distill.backends import Disk
from distill.engine.segments import SegmentName
from schemas.evidence import SegmentManifest
from services import files
from services.errors import Unavailable

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class OpenSegment:
    """A segment that is not sealed. `digest` and `lines` are what its seal will say."""

    name: SegmentName
    number: int
    fd: int = -1
    size: int = 0
    lines: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def count(self, data: bytes, lines: int) -> None:
        """Take in whole lines that lie behind the others."""
        self.size += len(data)
        self.lines += lines
        self.digest.update(data)

    def open(self, path: Path) -> None:
        self.fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)


@dataclass(frozen=True, slots=True)
class Written:
    """Where a group was written, and the time that its file has then."""

    name: SegmentName
    number: int
    offset: int
    stamp: int


class SegmentWriter:
    """Appends to the segments of one writer. One thread at a time may `append`, which blocks.

    `number_of` gives a segment its number in the index.
    """

    def __init__(
        self,
        folder: Path,
        writer: str,
        disk: Disk,
        *,
        segment_bytes_max: int,
        number_of: Callable[[str], int],
    ) -> None:
        self._folder = folder
        self._disk = disk
        self._segment_bytes_max = segment_bytes_max
        self._number_of = number_of
        self._last = SegmentName(writer, 0)
        self._active: OpenSegment | None = None
        self._broken: str | None = None

    def follow(self, name: SegmentName) -> None:
        """Let the next segment be the one after this."""
        self._last = max(self._last, name)

    def go_on(self, segment: OpenSegment) -> None:
        """Append to this segment, which is open."""
        self.follow(segment.name)
        self._active = segment

    def close(self) -> None:
        if self._active is not None:
            os.close(self._active.fd)
            self._active = None

    def check(self) -> None:
        """Raise `Unavailable` unless records can be written."""
        if self._broken is not None:
            raise Unavailable(self._broken, code="log_broken")
        if not os.access(self._folder, os.W_OK):
            raise Unavailable(f"{self._folder} cannot be written", code="log_broken")

    def stop(self, reason: str) -> None:
        """Write nothing more, for a reason that whoever asks is told."""
        self._broken = reason

    def append(self, lines: Sequence[bytes]) -> Written:
        """Put whole lines behind each other; returns when they are on the medium.

        Raises `OSError`, and `Unavailable` once nothing more is written; nothing of the group is there then.
        """
        data = b"".join(lines)
        active = self._segment_for(len(data))
        offset = active.size
        self._put(active, data)
        self._sync(active)
        active.count(data, len(lines))
        return Written(active.name, active.number, offset, os.fstat(active.fd).st_mtime_ns)

    def _put(self, active: OpenSegment, data: bytes) -> None:
        try:
            taken = self._disk.write(active.fd, data)
        except OSError:
            self._cut_back(active)
            raise
        if taken < len(data):
            self._cut_back(active)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _cut_back(self, active: OpenSegment) -> None:
        try:
            os.ftruncate(active.fd, active.size)
        except OSError as error:
            self._break(f"half a group could not be cut off {active.name}: {error}")

    def _sync(self, active: OpenSegment) -> None:
        try:
            self._disk.sync(active.fd)
        except OSError as error:
            # After a failed sync nobody knows what is on the medium, and asking again may lie.
            self._cut_back(active)
            self._break(f"{active.name} could not be synced: {error}")
            raise

    def _break(self, reason: str) -> None:
        self.stop(f"{reason}; nothing is written until distill is started again")
        log.warning("nothing more is written", reason=reason)

    # --- segments -----------------------------------------------------------------------------

    def _segment_for(self, size: int) -> OpenSegment:
        active = self._active
        if active is not None and active.size and active.size + size > self._segment_bytes_max:
            self._seal(active)
        return self._active or self._create_next()

    def _seal(self, active: OpenSegment) -> None:
        name = active.name
        manifest = SegmentManifest(
            segment=str(name), sha256=active.digest.hexdigest(), lines=active.lines, bytes=active.size
        )
        files.replace(self._folder / name.manifest, manifest.model_dump_json().encode() + b"\n")
        os.close(active.fd)
        self._active = None
        log.info("segment sealed", segment=str(name), lines=active.lines, bytes=active.size)

    def _create_next(self) -> OpenSegment:
        name = SegmentName(self._last.writer, self._last.number + 1)
        number = self._number_of(str(name))
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(self._folder / str(name), flags, 0o600)
        try:
            os.fsync(fd)
            files.sync_folder(self._folder)
        except OSError:
            os.close(fd)
            (self._folder / str(name)).unlink(missing_ok=True)
            raise
        self.go_on(segment := OpenSegment(name, number, fd))
        return segment
