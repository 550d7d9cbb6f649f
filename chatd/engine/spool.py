"""Run records on disk until distill has acknowledged them: no caller waits for that, no crash loses one.

A segment is one append-only file, locked by the process that owns it. Lines are written whole and at once,
into the page cache: they outlive the process, and the machine's sudden death may take the last of them. A
segment is deleted when distill has all of it; after a crash the next start sends it again, which distill
recognises by `run_id`.
"""

import asyncio
import contextlib
import fcntl
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
import structlog

from chatd.engine.metrics import Metrics
from services import ids
from services.clients import DistillClient
from services.errors import Conflict, InvalidRequest, PlatformError, TooLarge, Unavailable

log = structlog.get_logger(__name__)

RETRY_FIRST_S: Final = 0.5
READ_AT_ONCE_BYTES_MAX: Final = 512 * 1024
"""Up to this size a segment is read sooner than a thread is found for it, and without its memory."""


@dataclass(slots=True)
class Segment:
    """One file of records, open and locked. `size` is in bytes."""

    path: Path
    fd: int
    size: int
    records: int

    def lines(self) -> list[bytes]:
        """The whole lines. A last one without its line feed was cut by a crash, and never acknowledged."""
        content = os.pread(self.fd, self.size, 0)
        whole, _, cut = content.rpartition(b"\n")
        if cut:
            log.warning("a record was cut by a crash", segment=self.path.name, bytes=len(cut))
        return [line + b"\n" for line in whole.split(b"\n") if line]


class Spool:
    """The segments of this process, and those that a dead one left behind. Belongs to one event loop."""

    def __init__(
        self,
        folder: Path,
        metrics: Metrics,
        *,
        bytes_max: int,
        segment_bytes_max: int,
        rejected_bytes_max: int,
    ) -> None:
        self._folder = folder
        self._metrics = metrics
        self._bytes_max = bytes_max
        self._segment_bytes_max = segment_bytes_max
        self._rejected_bytes_max = rejected_bytes_max
        self._active: Segment | None = None
        self._sealed: deque[Segment] = deque()
        self.waiting = asyncio.Event()

    def open(self) -> None:
        """Take over what dead processes left. Raises `OSError` when the folder cannot be used."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._folder.glob("segment-*.jsonl")):
            if (segment := _adopt(path)) is not None:
                self._sealed.append(segment)
                self.waiting.set()
        self._count()

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return sum(segment.size for segment in self._segments())

    @property
    def records(self) -> int:
        return sum(segment.records for segment in self._segments())

    def check_room(self) -> None:
        """Raise `Unavailable` when new records would not fit. Calls already under way still find room."""
        if self.size >= self._bytes_max:
            raise Unavailable(
                f"{self.size} bytes of run records wait for distill; at most {self._bytes_max} may, "
                "so no call is made that could not be recorded",
                code="spool_full",
                retry_after_s=5.0,
            )

    def append(self, line: bytes) -> None:
        """Write one line, all of it or nothing. Raises `Unavailable` when the disk refuses."""
        segment = None
        try:
            segment = self._active or self._create()
            self._active = segment
            _write(segment.fd, line)
        except OSError as error:
            if segment is not None:
                os.ftruncate(segment.fd, segment.size)
            log.exception("a record could not be written")
            raise Unavailable(
                f"the run record could not be written: {error.strerror}", code="spool_failed"
            ) from error
        segment.size += len(line)
        segment.records += 1
        if segment.size >= self._segment_bytes_max:
            self._seal()
        self._count()
        self.waiting.set()

    def oldest(self) -> Segment | None:
        """The next segment to hand over; nothing more is written to it."""
        if not self._sealed:
            self._seal()
        if not self._sealed:
            self.waiting.clear()
            return None
        return self._sealed[0]

    def drop(self, segment: Segment) -> None:
        """Forget a segment that distill has."""
        self._sealed.remove(segment)
        segment.path.unlink(missing_ok=True)
        os.close(segment.fd)
        self._count()

    def reject(self, line: bytes, code: str, message: str) -> None:
        """Set a refused record aside, so that it is neither lost nor sent for ever."""
        log.error("distill refused a run record", code=code)
        self._metrics.rejected.inc()
        path = self._folder / "rejected.jsonl"
        if path.exists() and path.stat().st_size >= self._rejected_bytes_max:
            path.replace(self._folder / "rejected.1.jsonl")
        head = orjson.dumps({"code": code, "message": message})
        with path.open("ab") as file:
            file.write(head[:-1] + b',"record":' + line.rstrip(b"\n") + b"}\n")

    def close(self) -> None:
        """Let go of the files; the next start, or another replica's, sends them."""
        for segment in self._segments():
            if segment.size == 0:
                segment.path.unlink(missing_ok=True)
            os.close(segment.fd)
        self._active = None
        self._sealed.clear()

    def _segments(self) -> Iterator[Segment]:
        yield from self._sealed
        if self._active is not None:
            yield self._active

    def _seal(self) -> None:
        if self._active is not None and self._active.size:
            self._sealed.append(self._active)
            self._active = None

    def _create(self) -> Segment:
        """A new file, locked before anybody can see it under its name."""
        name = f"segment-{ids.uuid7()}.jsonl"
        hidden = self._folder / f".{name}"
        fd = os.open(hidden, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path = hidden.rename(self._folder / name)
        return Segment(path, fd, 0, 0)

    def _count(self) -> None:
        self._metrics.spool_bytes.set(self.size)
        self._metrics.spool_records.set(self.records)


def _adopt(path: Path) -> Segment | None:
    """The segment at `path`, unless a living process owns it or it is empty."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(fd)
        if status.st_nlink and status.st_size:
            segment = Segment(path, fd, status.st_size, 0)
            segment.records = len(segment.lines())
            return segment
        path.unlink(missing_ok=True)
    os.close(fd)
    return None


def _write(fd: int, line: bytes) -> None:
    rest = memoryview(line)
    while rest:
        rest = rest[os.write(fd, rest) :]


class Sender:
    """Hands the spool to distill, oldest first, for as long as it takes."""

    def __init__(
        self,
        spool: Spool,
        distill: DistillClient,
        *,
        batch_bytes_max: int,
        linger_s: float,
        retry_max_s: float,
    ) -> None:
        self._spool = spool
        self._distill = distill
        self._batch_bytes_max = batch_bytes_max
        self._linger_s = linger_s
        self._retry_max_s = retry_max_s

    async def run(self) -> None:
        """Send what comes, for ever. While distill is down, ask again less and less often."""
        delay_s = RETRY_FIRST_S
        while True:
            await self._spool.waiting.wait()
            await asyncio.sleep(self._linger_s)
            try:
                await self.flush()
                delay_s = RETRY_FIRST_S
                continue
            except PlatformError as error:
                log.warning("distill takes no records", code=error.code, bytes=self._spool.size)
            except Exception:
                log.exception("handing over records failed")
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, self._retry_max_s)

    async def flush(self) -> None:
        """Send everything that waits. Raises the error of distill; what it has not taken stays."""
        while (segment := self._spool.oldest()) is not None:
            small = segment.size <= READ_AT_ONCE_BYTES_MAX
            lines = segment.lines() if small else await asyncio.to_thread(segment.lines)
            for batch in self._batches(lines):
                await self._hand_over(batch)
            self._spool.drop(segment)

    def _batches(self, lines: list[bytes]) -> Iterator[list[bytes]]:
        batch: list[bytes] = []
        size = 0
        for line in lines:
            if batch and size + len(line) > self._batch_bytes_max:
                yield batch
                batch, size = [], 0
            batch.append(line)
            size += len(line)
        if batch:
            yield batch

    async def _hand_over(self, batch: Sequence[bytes]) -> None:
        try:
            answer = await self._distill.append(batch)
        except (InvalidRequest, Conflict, TooLarge) as error:
            # One record may have spoilt the whole batch: halve it until that one stands alone.
            if len(batch) == 1:
                self._spool.reject(batch[0], error.code, error.message)
                return
            middle = len(batch) // 2
            await self._hand_over(batch[:middle])
            await self._hand_over(batch[middle:])
            return
        for rejection in answer.rejected:
            if 1 <= rejection.line <= len(batch):
                self._spool.reject(batch[rejection.line - 1], rejection.code, rejection.message)
