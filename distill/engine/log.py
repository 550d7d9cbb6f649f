"""The append-only log: what is acknowledged is on the medium, and concurrent requests share one fsync."""

import asyncio
import errno
import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import orjson
import structlog

from distill.backends import Disk
from distill.engine import segments
from distill.engine.index import Entry, Index, Location, Outcome, Owner, Staged, digest_of, owner_of
from distill.engine.metrics import Metrics
from distill.engine.segments import LogDamaged, SegmentName
from schemas.evidence import SegmentManifest
from services import files
from services.errors import Overloaded, Unavailable

log = structlog.get_logger(__name__)

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class LogLimits:
    segment_bytes_max: int
    group_bytes_max: int
    queue_bytes_max: int
    notes_max: int


@dataclass(frozen=True, slots=True)
class SegmentView:
    """A segment as it was at one moment: bytes from `end` on are not part of the view.

    `ordinal` is what locations in it name it by.
    """

    ordinal: int
    name: str
    path: Path
    end: int


@dataclass(slots=True)
class _Ticket:
    """One request's entries, and where its answer is awaited."""

    entries: Sequence[Entry]
    size: int
    answer: asyncio.Future[list[Outcome]]


@dataclass(slots=True)
class _Segment:
    """A segment, and how many of its bytes are whole lines on the medium."""

    name: SegmentName
    size: int


@dataclass(slots=True)
class _Active:
    """The open segment of this writer. `digest` and `lines` are what its seal will say."""

    fd: int
    ordinal: int
    size: int
    lines: int
    digest: "hashlib._Hash"


class Log:
    """Owns the folder. `open` before use, `commit_forever` beside it, `close` after it."""

    def __init__(self, folder: Path, writer: str, limits: LogLimits, disk: Disk, metrics: Metrics) -> None:
        self.folder = folder
        self.index = Index(notes_max=limits.notes_max)
        self._writer = writer
        self._limits = limits
        self._disk = disk
        self._metrics = metrics
        self._segments: list[_Segment] = []
        self._active: _Active | None = None
        self._lock: IO[bytes] | None = None
        self._broken: str | None = None
        self._queue: deque[_Ticket] = deque()
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        # A thread of its own: parsing and jobs keep the shared ones busy, and no write may wait for them.
        self._writer_thread = ThreadPoolExecutor(1, thread_name_prefix="log")

    # --- start and end ------------------------------------------------------------------------

    def open(self) -> None:
        """Lock the folder, move a torn tail aside, and index what is there. Blocks.

        Raises `LogInUse` or `LogDamaged`; the message names the file, and the offset where there is one.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        files.sync_folder(self.folder.parent)
        self._lock = segments.lock(self.folder)
        names = segments.list_segments(self.folder)
        last = {name.writer: name for name in names}
        for name in names:
            self._load(name, is_last=last[name.writer] == name)
        self._metrics.log_bytes.set(self._bytes())
        log.info("log opened", segments=len(self._segments), runs=len(self.index), bytes=self._bytes())

    def close(self) -> None:
        """Wait for a write under way, then let go of the folder."""
        self._writer_thread.shutdown()
        if self._active is not None:
            os.close(self._active.fd)
            self._active = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _load(self, name: SegmentName, *, is_last: bool) -> None:
        manifest = segments.read_manifest(self.folder, name)
        if manifest is None and not is_last:
            raise LogDamaged(f"{name} has a successor and no {name.manifest}; put the manifest back")
        path = self.folder / str(name)
        if manifest is None and (torn := segments.save_torn_tail(path)) is not None:
            self._metrics.torn_tails.inc()
            log.warning(
                "torn tail moved aside",
                segment=torn.segment,
                offset=torn.offset,
                bytes=torn.length,
                saved_as=torn.saved_as,
            )
        state = self._scan(name)
        if manifest is not None:
            _check_seal(name, manifest, state)
        elif name.writer == self._writer:
            state.fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            self._active = state

    def _scan(self, name: SegmentName) -> _Active:
        state = _Active(-1, len(self._segments), 0, 0, hashlib.sha256())
        for line in segments.read_lines(self.folder / str(name)):
            record = _decode(name, line.offset, line.data)
            state.digest.update(line.data)
            state.lines += 1
            state.size += len(line.data)
            owner = owner_of(record)
            if owner is not None:
                location = Location(state.ordinal, line.offset, len(line.data), digest_of(line.data))
                self.index.add(record["schema"], owner, location)
        self._segments.append(_Segment(name, state.size))
        return state

    def _bytes(self) -> int:
        return sum(segment.size for segment in self._segments)

    # --- appending ----------------------------------------------------------------------------

    async def append(self, entries: Sequence[Entry]) -> list[Outcome]:
        """Write what is new; return, once it is on the medium, what became of each entry.

        Raises `Overloaded` when too much waits, `Unavailable` when the disk is full or failing; nothing of
        the call is in the log then.
        """
        self.check()
        size = sum(len(entry.line) for entry in entries)
        if self._queued_bytes and self._queued_bytes + size > self._limits.queue_bytes_max:
            raise Overloaded(
                f"{self._queued_bytes} bytes wait to be written; at most {self._limits.queue_bytes_max} may"
            )
        ticket = _Ticket(entries, size, asyncio.get_running_loop().create_future())
        self._queue.append(ticket)
        self._queued_bytes += size
        self._wake.set()
        return await ticket.answer

    async def commit_forever(self) -> None:
        """Write groups as they come: while one is being synced, the next one gathers."""
        try:
            while True:
                await self._wake.wait()
                while self._queue:
                    await self._commit(self._take_group())
                self._wake.clear()
        finally:
            self._broken = "the writer has stopped; distill is shutting down, or must be started again"
            _refuse(self._queue, _stopping())

    def _take_group(self) -> list[_Ticket]:
        group = [self._queue.popleft()]
        size = group[0].size
        while self._queue and size + self._queue[0].size <= self._limits.group_bytes_max:
            group.append(self._queue.popleft())
            size += group[-1].size
        self._queued_bytes -= size
        return group

    async def _commit(self, group: list[_Ticket]) -> None:
        staged, fresh = Staged(), []
        outcomes: list[list[Outcome]] = []
        for ticket in group:
            verdicts = [self.index.judge(entry, staged) for entry in ticket.entries]
            fresh += [entry for entry, one in zip(ticket.entries, verdicts, strict=True) if one == "appended"]
            outcomes.append(verdicts)
        failure = _stopping()
        try:
            if fresh:
                ordinal, offset = await asyncio.get_running_loop().run_in_executor(
                    self._writer_thread, self._write, [entry.line for entry in fresh]
                )
                self._remember(fresh, ordinal, offset)
            for ticket, verdicts in zip(group, outcomes, strict=True):
                if not ticket.answer.done():
                    ticket.answer.set_result(verdicts)
        except (OSError, Unavailable) as error:
            failure = _unavailable(error)
            log.warning("append failed", reason=failure.message, records=len(fresh))
        finally:
            _refuse(group, failure)

    def _remember(self, fresh: list[Entry], ordinal: int, offset: int) -> None:
        for entry in fresh:
            location = Location(ordinal, offset, len(entry.line), entry.digest)
            self.index.add(entry.schema, entry.owner, location)
            offset += len(entry.line)
            self._metrics.appended.labels(entry.schema).inc()
        self._segments[ordinal].size = offset
        self._metrics.log_bytes.set(self._bytes())
        self._metrics.fsyncs.inc()
        self._metrics.group_records.observe(len(fresh))

    def _write(self, lines: list[bytes]) -> tuple[int, int]:
        """Put whole lines behind each other, or nothing. Returns the segment's ordinal and the offset."""
        self.check()  # what was queued before the log broke must not be written after it
        data = b"".join(lines)
        active = self._segment_for(len(data))
        offset = active.size
        self._append(active, data)
        self._sync(active)
        active.size += len(data)
        active.lines += len(lines)
        active.digest.update(data)
        return active.ordinal, offset

    def _append(self, active: _Active, data: bytes) -> None:
        try:
            taken = self._disk.write(active.fd, data)
        except OSError:
            self._cut_back(active)
            raise
        if taken < len(data):
            self._cut_back(active)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _cut_back(self, active: _Active) -> None:
        try:
            os.ftruncate(active.fd, active.size)
        except OSError as error:
            self._break(f"half a group could not be cut off {self._segments[active.ordinal].name}: {error}")

    def _sync(self, active: _Active) -> None:
        try:
            self._disk.sync(active.fd)
        except OSError as error:
            # After a failed sync nobody knows what is on the medium, and asking again may lie.
            self._cut_back(active)
            self._break(f"{self._segments[active.ordinal].name} could not be synced: {error}")
            raise

    def _break(self, reason: str) -> None:
        self._broken = f"{reason}; nothing is written until distill is started again"
        log.warning("nothing more is written", reason=reason)

    def _segment_for(self, size: int) -> _Active:
        active = self._active
        if active is not None and active.size and active.size + size > self._limits.segment_bytes_max:
            self._seal(active)
        return self._active or self._create_next()

    def _seal(self, active: _Active) -> None:
        name = self._segments[active.ordinal].name
        manifest = SegmentManifest(
            segment=str(name), sha256=active.digest.hexdigest(), lines=active.lines, bytes=active.size
        )
        files.replace(self.folder / name.manifest, manifest.model_dump_json().encode() + b"\n")
        os.close(active.fd)
        self._active = None
        log.info("segment sealed", segment=str(name), lines=active.lines, bytes=active.size)

    def _create_next(self) -> _Active:
        numbers = [one.name.number for one in self._segments if one.name.writer == self._writer]
        name = SegmentName(self._writer, max(numbers, default=0) + 1)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(self.folder / str(name), flags, 0o600)
        try:
            os.fsync(fd)
            files.sync_folder(self.folder)
        except OSError:
            os.close(fd)
            (self.folder / str(name)).unlink(missing_ok=True)
            raise
        self._active = _Active(fd, len(self._segments), 0, 0, hashlib.sha256())
        self._segments.append(_Segment(name, 0))
        return self._active

    # --- reading ------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise `Unavailable` unless records can be written."""
        if self._broken is not None:
            raise Unavailable(self._broken, code="log_broken")
        if not os.access(self.folder, os.W_OK):
            raise Unavailable(f"{self.folder} cannot be written", code="log_broken")

    def snapshot(self) -> list[SegmentView]:
        """The log as it is now, in the order of names; what is appended later is not in it."""
        found = sorted(enumerate(list(self._segments)), key=lambda one: one[1].name)
        return [
            SegmentView(ordinal, str(one.name), self.folder / str(one.name), one.size)
            for ordinal, one in found
        ]

    async def run_line(self, run_id: str) -> bytes | None:
        """The line of a run, or None when there is none of this id."""
        location = self.index.run(run_id)
        return None if location is None else await asyncio.to_thread(self.read, location)

    async def note_lines(self, owner: Owner) -> list[bytes]:
        """The lines of the verdicts and feedback on `owner`, in the order in which they came."""
        locations = list(self.index.notes(owner))
        return await asyncio.to_thread(lambda: [self.read(location) for location in locations])

    def source_of(self, location: Location) -> str:
        return str(self._segments[location.segment].name)

    def read(self, location: Location) -> bytes:
        """One line. Blocks."""
        with (self.folder / self.source_of(location)).open("rb") as file:
            return os.pread(file.fileno(), location.length, location.offset)


def _decode(segment: SegmentName, offset: int, data: bytes) -> dict[str, Any]:
    try:
        record = orjson.loads(data)
    except orjson.JSONDecodeError:
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("schema"), str):
        raise LogDamaged(
            f"{segment}: the line at offset {offset} ({len(data)} bytes) is not a record; "
            "restore the file from a copy, nothing is repaired in the middle of a log"
        )
    return record


def _check_seal(name: SegmentName, manifest: SegmentManifest, found: _Active) -> None:
    if (manifest.sha256, manifest.lines, manifest.bytes) != (
        found.digest.hexdigest(),
        found.lines,
        found.size,
    ):
        raise LogDamaged(
            f"{name} is not what was sealed: {found.lines} lines and {found.size} bytes, where "
            f"{name.manifest} has {manifest.lines} and {manifest.bytes}, or other content"
        )


def _unavailable(error: OSError | Unavailable) -> Unavailable:
    if isinstance(error, Unavailable):
        return error
    if error.errno in FULL:
        return Unavailable(
            "the disk under the log is full; nothing of this request was kept, free space and send it again",
            code="disk_full",
            retry_after_s=5.0,
        )
    return Unavailable(f"the log cannot be written: {error.strerror}", code="log_broken")


def _stopping() -> Unavailable:
    return Unavailable("distill stopped before the records were on disk; send them again")


def _refuse(tickets: Iterable[_Ticket], failure: Unavailable) -> None:
    """Answer everybody who has no answer yet."""
    for ticket in tickets:
        if not ticket.answer.done():
            ticket.answer.set_exception(failure)


def lines_of(view: SegmentView) -> Iterator[segments.Line]:
    """The lines of a segment within a view."""
    return segments.read_lines(view.path, view.end)
