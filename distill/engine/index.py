"""Where each record lies in the log, with a digest of it: enough to find it, or to know it again.

Lies in an SQLite file, so that memory does not grow with the log; what is newest waits in memory, to be
written some thousand records at a time. The file is never synced and can always be made again: it says how
far into each segment it goes, and is thrown away when that cannot be, or when the machine went down while it
was written.
"""

import contextlib
import hashlib
import secrets
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal

import structlog

from schemas.review import Review
from schemas.runs import Feedback, Run, VerdictRecord

log = structlog.get_logger(__name__)

Outcome = Literal["appended", "repeated", "run_id_conflict", "notes_full"]

Row = tuple[bytes, int, int, int, bytes]
"""Key, segment, offset, length and digest of a record."""

DIGEST_BYTES: Final = 16
PREFIX_BYTES: Final = 12

KEYS_AT_ONCE: Final = 256
ROWS_AT_ONCE: Final = 512
NEW_MAX: Final = 4096
"""Records that are kept in memory until they are written together: alone, each would rewrite a page."""
CACHE_KIB: Final = 16 * 1024
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

TABLES: Final = """
create table if not exists state (name text primary key, value text) without rowid;
create table if not exists segments (
    number integer primary key, name text unique, size integer, stamp integer
);
create table if not exists runs (
    key blob primary key, segment integer, offset integer, length integer, digest blob
) without rowid;
create table if not exists notes (
    id integer primary key, key blob, segment integer, offset integer, length integer, digest blob
);
create index if not exists notes_by_key on notes (key);
"""
VERSION: Final = "2"

NOTES: Final = (VerdictRecord.schema_id, Feedback.schema_id, Review.schema_id)


@dataclass(frozen=True, slots=True)
class Owner:
    """What a record belongs to: the run, the episode or the evidence of this id."""

    scope: Literal["run", "episode", "evidence"]
    id: str

    @property
    def key(self) -> bytes:
        """Begins as the id does: ids that are made one after the other are neighbours in the tree."""
        digest = hashlib.sha256(f"{self.scope}:{self.id}".encode()).digest()
        return self.id.encode()[:PREFIX_BYTES].ljust(PREFIX_BYTES, b"\0") + digest[:PREFIX_BYTES]


@dataclass(frozen=True, slots=True)
class Location:
    """Bytes of the log: the segment's number in the index, and the line in it."""

    segment: int
    offset: int
    length: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """A record on its way into the log, as its final line."""

    schema: str
    owner: Owner
    owner_key: bytes
    line: bytes
    digest: bytes


def digest_of(line: bytes) -> bytes:
    """Lines are canonical, so equal content is equal bytes."""
    return hashlib.sha256(line).digest()[:DIGEST_BYTES]


def owner_of(record: Mapping[str, Any]) -> Owner | None:
    """What a record belongs to, or None for a record of a kind that is not indexed."""
    if record.get("schema") not in (Run.schema_id, *NOTES):
        return None
    if isinstance(run_id := record.get("run_id"), str):
        return Owner("run", run_id)
    if isinstance(episode_id := record.get("episode_id"), str):
        return Owner("episode", episode_id)
    if isinstance(evidence_id := record.get("evidence_id"), str):
        return Owner("evidence", evidence_id)
    return None


@dataclass(frozen=True, slots=True)
class Known:
    """A segment as far as it is in the index. `stamp` is when the file was written last, in nanoseconds."""

    number: int
    name: str
    size: int
    stamp: int


class Index:
    """Runs by id; verdicts, feedback and reviews (notes) by what they belong to. One process has the file."""

    def __init__(self, path: Path, *, notes_max: int) -> None:
        self._path = path
        self._notes_max = notes_max
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        """Held over a whole transaction; `_lock` is let go of within, so that readers have a turn."""
        self._new = _New()
        self._db = self._opened()

    def close(self) -> None:
        """Write what is in memory, and leave word of it."""
        with contextlib.suppress(sqlite3.OperationalError):
            self.settle()
            self._db.execute("update state set value = '' where name = 'open_since_boot'")
        self._db.close()

    def reset(self) -> None:
        """Begin anew, with nothing."""
        with self._lock:
            self._new = _New()
            self._db.close()
            self._remove()
            self._db = self._opened()

    # --- the file -----------------------------------------------------------------------------

    def _opened(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return self._trusted()
        except (OSError, sqlite3.OperationalError) as error:
            # A full disk must not keep anybody from reading the log.
            log.warning("the index is kept in memory", reason=str(error))
            return self._connect(":memory:")

    def _trusted(self) -> sqlite3.Connection:
        """The file, or a new one where what it says cannot be relied on."""
        try:
            db = self._connect(self._path)
            state = dict(db.execute("select name, value from state"))
            if state.get("version") == VERSION and state.get("open_since_boot") in ("", _boot_id()):
                db.execute("update state set value = ? where name = 'open_since_boot'", (_boot_id(),))
                return db
            db.close()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:  # no database, or one that is damaged
            pass
        self._remove()
        return self._connect(self._path)

    def _connect(self, path: Path | str) -> sqlite3.Connection:
        db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        db.execute("pragma journal_mode = wal")
        db.execute("pragma synchronous = off")
        db.execute(f"pragma cache_size = -{CACHE_KIB}")
        if not db.execute("select 1 from sqlite_master where name = 'state'").fetchone():
            db.executescript(TABLES)
            db.execute(
                "insert into state values ('version', ?), ('open_since_boot', ?)", (VERSION, _boot_id())
            )
        return db

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    # --- segments -----------------------------------------------------------------------------

    def segments(self) -> dict[str, Known]:
        """What is indexed, by the segments' names."""
        with self._lock:
            rows = self._db.execute("select number, name, size, stamp from segments").fetchall()
        return {name: Known(number, name, size, stamp) for number, name, size, stamp in rows}

    def number_of(self, name: str) -> int:
        """The number that locations name a segment by; the same for as long as the index lives."""
        with self._writing, self._lock:
            self._db.execute("insert or ignore into segments (name, size, stamp) values (?, 0, 0)", (name,))
            number: int = self._db.execute("select number from segments where name = ?", (name,)).fetchone()[
                0
            ]
        return number

    # --- records ------------------------------------------------------------------------------

    def stage(self, number: int, offset: int, stamp: int, entries: Sequence[Entry]) -> int:
        """Remember records that lie behind one another from `offset` on; return where they end.

        Call `settle` when there `is_full`.
        """
        runs, notes = self._new.runs, self._new.notes
        for entry in entries:
            length = len(entry.line)
            row = (entry.owner_key, number, offset, length, entry.digest)
            if entry.schema == Run.schema_id:
                runs[entry.owner_key] = row
            else:
                notes.setdefault(entry.owner_key, []).append(row)
            offset += length
        self._new.count += len(entries)
        self._new.ends[number] = (offset, stamp)
        return offset

    @property
    def is_full(self) -> bool:
        """Whether there is as much in memory as there should be."""
        return self._new.count >= NEW_MAX

    def settle(self) -> None:
        """Write what was staged into the file. Nothing may be staged meanwhile."""
        new = self._new
        if new.count:
            notes = list(chain.from_iterable(new.notes.values()))
            self._write(list(new.runs.values()), notes, new.ends, staged=new)

    def add(self, number: int, size: int, stamp: int, records: Sequence["Placed"]) -> None:
        """Remember records of a segment, which is indexed up to `size` then. Of two runs with one id the
        first counts.
        """
        runs: list[Row] = []
        notes: list[Row] = []
        for one in records:
            rows = runs if one.schema == Run.schema_id else notes
            rows.append((one.key, number, one.offset, one.length, one.digest))
        self._write(runs, notes, {number: (size, stamp)})

    def _write(
        self,
        runs: list[Row],
        notes: list[Row],
        ends: Mapping[int, tuple[int, int]],
        *,
        staged: "_New | None" = None,
    ) -> None:
        """Write rows and how far segments are indexed, or nothing; then forget what was staged of it."""
        runs.sort()  # neighbours in the tree, one after the other
        with self._writing:
            try:
                with self._lock:
                    self._db.execute("begin")
                for start in range(0, len(runs), ROWS_AT_ONCE):
                    with self._lock:
                        self._insert("insert or ignore into runs", runs[start : start + ROWS_AT_ONCE])
                with self._lock:  # until the end: notes are told from one place or the other, not from both
                    for start in range(0, len(notes), ROWS_AT_ONCE):
                        self._insert("insert into notes", notes[start : start + ROWS_AT_ONCE])
                    for number, (size, stamp) in ends.items():
                        query = "update segments set size = ?, stamp = ? where number = ?"
                        self._db.execute(query, (size, stamp, number))
                    self._db.execute("commit")
                    if staged is not None:
                        staged.clear()
            except BaseException:
                with self._lock, contextlib.suppress(sqlite3.OperationalError):  # perhaps it is done already
                    self._db.execute("rollback")
                raise

    def _insert(self, into: str, rows: Sequence[Row]) -> None:
        """Insert many rows with a statement: each lets go of the interpreter, and may wait for it."""
        values = ",".join(["(?,?,?,?,?)"] * len(rows))
        query = f"{into} (key, segment, offset, length, digest) values {values}"
        self._db.execute(query, tuple(chain.from_iterable(rows)))

    # --- asking -------------------------------------------------------------------------------

    def run(self, run_id: str) -> Location | None:
        key = Owner("run", run_id).key
        with self._lock:
            if new := self._new.runs.get(key):
                return Location(*new[1:])
            row = self._db.execute(
                "select segment, offset, length, digest from runs where key = ?", (key,)
            ).fetchone()
        return Location(*row) if row else None

    def notes(self, owner: Owner) -> list[Location]:
        """What was said of `owner`, in the order in which it came."""
        with self._lock:
            rows = self._db.execute(
                "select segment, offset, length, digest from notes where key = ? order by id limit ?",
                (owner.key, self._notes_max),
            ).fetchall()
            rows += [row[1:] for row in self._new.notes.get(owner.key, ())]
        return [Location(*row) for row in rows[: self._notes_max]]

    def judge(self, entries: Sequence[Entry], staged: "Staged") -> list[Outcome]:
        """What becomes of entries, given the log and what is about to be written with them."""
        self._look_up([entry.owner_key for entry in entries if entry.schema == Run.schema_id], staged)
        return [
            self._judge_run(entry, staged)
            if entry.schema == Run.schema_id
            else self._judge_note(entry, staged)
            for entry in entries
        ]

    def _look_up(self, keys: Sequence[bytes], staged: "Staged") -> None:
        """Bring the digests of runs that are in the log already into `staged`."""
        new = self._new.runs
        asked = [key for key in keys if key not in new]
        if len(asked) < len(keys):
            for key in keys:
                if key in new:
                    staged.runs.setdefault(key, new[key][-1])
        with self._lock:
            for start in range(0, len(asked), KEYS_AT_ONCE):
                some = asked[start : start + KEYS_AT_ONCE]
                marks = ",".join("?" * len(some))
                query = f"select key, digest from runs where key in ({marks})"  # noqa: S608 - question marks
                for key, digest in self._db.execute(query, some):
                    staged.runs.setdefault(key, digest)

    def _judge_run(self, entry: Entry, staged: "Staged") -> Outcome:
        known = staged.runs.setdefault(entry.owner_key, entry.digest)
        if known is entry.digest:
            return "appended"
        return "repeated" if known == entry.digest else "run_id_conflict"

    def _judge_note(self, entry: Entry, staged: "Staged") -> Outcome:
        digests = staged.notes.get(entry.owner_key)
        if digests is None:
            known = [location.digest for location in self.notes(entry.owner)]
            digests = staged.notes[entry.owner_key] = known
        if entry.digest in digests:
            return "repeated"
        if len(digests) >= self._notes_max:
            return "notes_full"
        digests.append(entry.digest)
        return "appended"


@dataclass(frozen=True, slots=True)
class Placed:
    """A record that is in the log: the key of what it belongs to, and its line."""

    schema: str
    key: bytes
    offset: int
    length: int
    digest: bytes


@dataclass(slots=True)
class _New:
    """Records that are in the log and not yet in the file: runs by key, notes by what they belong to, and the
    size and stamp of the segments that they are in.
    """

    runs: dict[bytes, Row] = field(default_factory=dict)
    notes: dict[bytes, list[Row]] = field(default_factory=dict)
    ends: dict[int, tuple[int, int]] = field(default_factory=dict)
    count: int = 0

    def clear(self) -> None:
        self.runs.clear()
        self.notes.clear()
        self.ends.clear()
        self.count = 0


@dataclass(slots=True)
class Staged:
    """Digests of the records that count for a group: those in the log, and those of the group itself."""

    runs: dict[bytes, bytes] = field(default_factory=dict)
    notes: dict[bytes, list[bytes]] = field(default_factory=dict)


def _boot_id() -> str:
    """Names the time since the machine was started; where that cannot be told, every start is another."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return secrets.token_hex(16)
