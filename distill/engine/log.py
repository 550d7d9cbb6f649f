"""The append-only log: what is acknowledged is on the medium, and concurrent requests share one fsync."""

import asyncio
import errno
import os
import sqlite3
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

import orjson
import structlog

from distill.backends import Disk
from distill.engine import segments
from distill.engine.index import (
    Entry,
    Index,
    Location,
    Outcome,
    Owner,
    Placed,
    Staged,
    digest_of,
    owner_of,
)
from distill.engine.metrics import Metrics
from distill.engine.products import sha256_of
from distill.engine.segments import LogDamaged, SegmentName
from distill.engine.segmentwriter import OpenSegment, SegmentWriter, Written
from schemas.evidence import SegmentManifest
from services import files
from services.errors import Overloaded, Unavailable

log = structlog.get_logger(__name__)

INDEX_LINES: Final = 20_000
ENTRIES_AT_ONCE: Final = 500
"""Records that the index is asked of before others have a turn: a millisecond or two."""

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class LogLimits:
    segment_bytes_max: int
    group_bytes_max: int
    queue_bytes_max: int
    notes_max: int


@dataclass(frozen=True, slots=True)
class SegmentView:
    """A segment as it was at one moment: bytes from `end` on are not part of the view."""

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


class Log:
    """Owns one writer's segments of the folder, and reads those of other writers.

    `open` before use, `commit_forever` beside it, `close` after it.
    """

    def __init__(
        self, folder: Path, writer: str, limits: LogLimits, disk: Disk, metrics: Metrics, *, index: Path
    ) -> None:
        self.folder = folder
        self._index_path = index
        self._index: Index | None = None
        self._writer = writer
        self._limits = limits
        self._metrics = metrics
        self._segments: dict[int, _Segment] = {}
        self._end = SegmentWriter(
            folder,
            writer,
            disk,
            segment_bytes_max=limits.segment_bytes_max,
            number_of=self._number_of,
        )
        self._lock: IO[bytes] | None = None
        self._queue: deque[_Ticket] = deque()
        self._queued_bytes = 0
        metrics.waiting_bytes.set_function(lambda: self._queued_bytes)
        self._wake = asyncio.Event()
        # A thread of its own: parsing and jobs keep the shared ones busy, and no write may wait for them.
        self._writer_thread = ThreadPoolExecutor(1, thread_name_prefix="log")

    @property
    def index(self) -> Index:
        assert self._index is not None  # from `open` on
        return self._index

    # --- start and end ------------------------------------------------------------------------

    def open(self) -> None:
        """Lock our segments, move a torn tail aside, and bring the index up to what is there. Blocks.

        Raises `LogInUse` or `LogDamaged`; the message names the file, and the offset where there is one.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        files.sync_folder(self.folder.parent)
        self._lock = segments.lock(self.folder, self._writer)
        names = segments.list_segments(self.folder)
        last = {name.writer: name for name in names}
        self._index = Index(self._index_path, notes_max=self._limits.notes_max)
        if not self._index_fits(names):
            log.info("the log is indexed anew")
            self._index.reset()
        for name in names:
            self._load(name, is_last=last[name.writer] == name)
        self._metrics.log_bytes.set(self._bytes())
        log.info("log opened", segments=len(self._segments), bytes=self._bytes())

    def close(self) -> None:
        """Wait for a write under way, then let go of the folder."""
        self._writer_thread.shutdown()
        self._end.close()
        if self._index is not None:
            self._index.close()
            self._index = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _index_fits(self, names: Sequence[SegmentName]) -> bool:
        """Whether the index is of these very segments, as far as it goes."""
        there = {str(name): (self.folder / str(name)).stat() for name in names}
        return all(
            known.name in there
            and known.size <= there[known.name].st_size
            and (known.size < there[known.name].st_size or known.stamp == there[known.name].st_mtime_ns)
            for known in self.index.segments().values()
            if known.size
        )

    def _load(self, name: SegmentName, *, is_last: bool) -> None:
        manifest = segments.read_manifest(self.folder, name)
        if manifest is None and not is_last:
            raise LogDamaged(f"{name} has a successor and no {name.manifest}; put the manifest back")
        number = self._number_of(str(name))
        self._segments[number] = _Segment(name, 0)
        if name.writer == self._writer:
            self._end.follow(name)
        if manifest is not None:
            self._check_seal(name, manifest)
            self._catch_up(number, manifest.bytes)
        elif name.writer == self._writer:
            self._save_torn_tail(name)
            segment = self._check_lines(name, number)
            self._catch_up(number, segment.size)
            segment.open(self.folder / str(name))
            self._end.go_on(segment)
        else:
            self._check_lines(name, number)
            self._catch_up(number, segments.whole_bytes(self.folder / str(name)))

    def _save_torn_tail(self, name: SegmentName) -> None:
        torn = segments.save_torn_tail(self.folder / str(name))
        if torn is not None:
            self._metrics.torn_tails.inc()
            log.warning(
                "torn tail moved aside",
                segment=torn.segment,
                offset=torn.offset,
                bytes=torn.length,
                saved_as=torn.saved_as,
            )

    def _check_seal(self, name: SegmentName, manifest: SegmentManifest) -> None:
        path = self.folder / str(name)
        size = path.stat().st_size
        if size != manifest.bytes or sha256_of(path) != manifest.sha256:
            raise LogDamaged(
                f"{name} is not what was sealed: {size} bytes, where {name.manifest} has {manifest.bytes},"
                " or other content"
            )

    def _check_lines(self, name: SegmentName, number: int) -> OpenSegment:
        """Go through an open segment: every whole line of it has to be a record."""
        path = self.folder / str(name)
        segment = OpenSegment(name, number)
        for line in segments.read_lines(path, end=segments.whole_bytes(path)):
            _decode(name, line.offset, line.data)
            segment.count(line.data, 1)
        return segment

    def _catch_up(self, number: int, end: int) -> None:
        """Index a segment up to byte `end`, from where the index ended."""
        segment = self._segments[number]
        name = segment.name
        path = self.folder / str(name)
        stamp = path.stat().st_mtime_ns
        known = self.index.segments()[str(name)]
        offset = known.size
        if offset < end or known.stamp != stamp:
            lines = segments.read_lines(path, known.size, end)
            while batch := list(islice(lines, INDEX_LINES)):
                offset = batch[-1].offset + len(batch[-1].data)
                placed = [one for line in batch if (one := _placed(name, line)) is not None]
                self.index.add(number, offset, stamp, placed)
            self.index.add(number, offset, stamp, [])
        segment.size = min(offset, end)  # what its writer took back is not looked at

    def refresh(self) -> None:
        """Look for what other writers have written since. Blocks."""
        for name in segments.list_segments(self.folder):
            if name.writer != self._writer:
                number = self._number_of(str(name))
                self._segments.setdefault(number, _Segment(name, 0))
                self._catch_up(number, segments.whole_bytes(self.folder / str(name)))

    def _number_of(self, name: str) -> int:
        return self.index.number_of(name)

    def _bytes(self) -> int:
        return sum(segment.size for segment in list(self._segments.values()))

    # --- appending ----------------------------------------------------------------------------

    async def append(self, entries: Sequence[Entry]) -> list[Outcome]:
        """Write what is new; return, once it is on the medium, what became of each entry.

        Raises `Overloaded` when too much waits, `Unavailable` when the disk is full or failing; nothing of
        the call is in the log then.
        """
        return await self.offer(entries)

    def offer(self, entries: Sequence[Entry]) -> asyncio.Future[list[Outcome]]:
        """The same for who does not wait in a task: what `append` returns or raises is in the future.

        Raises `Overloaded` and `Unavailable` where that is known at once.
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
        return ticket.answer

    async def commit_forever(self) -> None:
        """Write groups as they come: while one is being synced, the next one gathers."""
        try:
            while True:
                await self._wake.wait()
                while self._queue:
                    await self._commit(self._take_group())
                self._wake.clear()
        finally:
            self._end.stop("the writer has stopped; distill is shutting down, or must be started again")
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
        failure = _stopping()
        try:
            fresh: list[Entry] = []
            outcomes = await self._judge(group, fresh)
            if fresh:
                written = await asyncio.get_running_loop().run_in_executor(
                    self._writer_thread, self._write, [entry.line for entry in fresh]
                )
                self._remember(fresh, written)
            for ticket, verdicts in zip(group, outcomes, strict=True):
                if not ticket.answer.done():
                    ticket.answer.set_result(verdicts)
        except (OSError, Unavailable, sqlite3.Error) as error:
            failure = _unavailable(error)
            log.warning("append failed", reason=failure.message)
        finally:
            _refuse(group, failure)

    async def _judge(self, group: list[_Ticket], fresh: list[Entry]) -> list[list[Outcome]]:
        """What becomes of each entry; those that are new are put into `fresh`."""
        staged = Staged()
        outcomes: list[list[Outcome]] = []
        for ticket in group:
            verdicts: list[Outcome] = []
            for start in range(0, len(ticket.entries), ENTRIES_AT_ONCE):
                if start:
                    await asyncio.sleep(0)  # let others have a turn
                some = ticket.entries[start : start + ENTRIES_AT_ONCE]
                found = self.index.judge(some, staged)
                fresh += [entry for entry, one in zip(some, found, strict=True) if one == "appended"]
                verdicts += found
            outcomes.append(verdicts)
        return outcomes

    def _remember(self, fresh: list[Entry], written: Written) -> None:
        end = self.index.stage(written.number, written.offset, written.stamp, fresh)
        for schema, count in Counter(entry.schema for entry in fresh).items():
            self._metrics.appended.labels(schema).inc(count)
        self._segments.setdefault(written.number, _Segment(written.name, 0)).size = end
        self._metrics.log_bytes.set(self._bytes())
        self._metrics.fsyncs.inc()
        self._metrics.group_records.observe(len(fresh))

    def _write(self, lines: list[bytes]) -> Written:
        self.check()  # what was queued before the log broke must not be written after it
        if self.index.is_full:
            self.index.settle()  # before the group: where it fails, there is nothing to take back
        return self._end.append(lines)

    # --- reading ------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise `Unavailable` unless records can be written."""
        self._end.check()

    def snapshot(self) -> list[SegmentView]:
        """The log as it is now, in the order of names; what is appended later is not in it. Blocks."""
        self.refresh()
        found = sorted(self._segments.values(), key=lambda one: one.name)
        return [SegmentView(str(one.name), self.folder / str(one.name), one.size) for one in found]

    async def run_line(self, run_id: str) -> bytes | None:
        """The line of a run, or None when there is none of this id."""
        location = self.index.run(run_id)
        if location is None:  # another writer may have it
            await asyncio.to_thread(self.refresh)
            location = self.index.run(run_id)
        return None if location is None else await asyncio.to_thread(self.read, location)

    async def note_lines(self, owner: Owner) -> list[bytes]:
        """The lines of the verdicts and feedback on `owner`, in the order in which they came."""
        locations = self.index.notes(owner)
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


def _placed(segment: SegmentName, line: segments.Line) -> Placed | None:
    """A line as the index has it, or None for a record of a kind that is not indexed."""
    record = _decode(segment, line.offset, line.data)
    owner = owner_of(record)
    if owner is None:
        return None
    return Placed(record["schema"], owner.key, line.offset, len(line.data), digest_of(line.data))


def _unavailable(error: OSError | Unavailable | sqlite3.Error) -> Unavailable:
    if isinstance(error, Unavailable):
        return error
    if isinstance(error, sqlite3.Error):
        return Unavailable(
            f"the index of the log cannot be read or written ({error}); the disk is full perhaps, nothing of"
            " this request was kept, send it again",
            code="disk_full",
            retry_after_s=5.0,
        )
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
