"""Where each record lies in the log, with a digest of it: enough to find it, or to know it again.

Lies in an SQLite file, so that memory does not grow with the log. The file is never synced and can always be
made again: it says how far into each segment it goes, and is thrown away when that cannot be, or when the
machine went down while it was written.
"""

import contextlib
import hashlib
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal

import structlog

from schemas.review import Review
from schemas.runs import Feedback, Run, VerdictRecord

log = structlog.get_logger(__name__)

Outcome = Literal["appended", "repeated", "run_id_conflict", "notes_full"]

DIGEST_BYTES: Final = 16

KEYS_AT_ONCE: Final = 256
ROWS_AT_ONCE: Final = 512
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
VERSION: Final = "1"

NOTES: Final = (VerdictRecord.schema_id, Feedback.schema_id, Review.schema_id)


@dataclass(frozen=True, slots=True)
class Owner:
    """What a record belongs to: the run, the episode or the evidence of this id."""

    scope: Literal["run", "episode", "evidence"]
    id: str

    @property
    def key(self) -> bytes:
        return hashlib.sha256(f"{self.scope}:{self.id}".encode()).digest()[:DIGEST_BYTES]


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
        self._db = self._opened()

    def close(self) -> None:
        """Leave word that everything was written."""
        with self._lock, contextlib.suppress(sqlite3.OperationalError):
            self._db.execute("update state set value = '' where name = 'open_since_boot'")
        self._db.close()

    def reset(self) -> None:
        """Begin anew, with nothing."""
        with self._lock:
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
        with self._lock:
            self._db.execute("insert or ignore into segments (name, size, stamp) values (?, 0, 0)", (name,))
            number: int = self._db.execute("select number from segments where name = ?", (name,)).fetchone()[
                0
            ]
        return number

    # --- records ------------------------------------------------------------------------------

    def add(self, number: int, size: int, stamp: int, records: Sequence["Placed"]) -> None:
        """Remember records of a segment, which is indexed up to `size` then. Of two runs with one id the
        first counts.
        """
        runs: list[tuple[bytes, int, int, int, bytes]] = []
        notes: list[tuple[bytes, int, int, int, bytes]] = []
        for one in records:
            rows = runs if one.schema == Run.schema_id else notes
            rows.append((one.key, number, one.offset, one.length, one.digest))
        if len(runs) > KEYS_AT_ONCE:
            runs.sort()  # neighbours in the tree, one after the other
        with self._lock, self._transaction():
            self._insert("insert or ignore into runs (key, segment, offset, length, digest)", runs)
            self._insert("insert into notes (key, segment, offset, length, digest)", notes)
            self._db.execute(
                "update segments set size = ?, stamp = ? where number = ?", (size, stamp, number)
            )

    def forget(self, number: int, size: int, stamp: int) -> None:
        """Take back what was added of a segment from byte `size` on. Goes through everything."""
        with self._lock, self._transaction():
            for table in ("runs", "notes"):
                query = f"delete from {table} where segment = ? and offset >= ?"  # noqa: S608 - our names
                self._db.execute(query, (number, size))
            self._db.execute(
                "update segments set size = ?, stamp = ? where number = ?", (size, stamp, number)
            )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("begin")
        try:
            yield
            self._db.execute("commit")
        except BaseException:
            with contextlib.suppress(sqlite3.OperationalError):  # it may have been rolled back already
                self._db.execute("rollback")
            raise

    def _insert(self, into: str, rows: Sequence[tuple[bytes, int, int, int, bytes]]) -> None:
        """Insert many rows with each statement: each lets go of the interpreter, and may wait for it."""
        start = 0
        while start < len(rows):
            count = min(ROWS_AT_ONCE, 1 << (len(rows) - start).bit_length() - 1)
            values = ",".join(["(?,?,?,?,?)"] * count)
            some = rows[start : start + count]
            self._db.execute(f"{into} values {values}", tuple(chain.from_iterable(some)))
            start += count

    def run(self, run_id: str) -> Location | None:
        with self._lock:
            row = self._db.execute(
                "select segment, offset, length, digest from runs where key = ?", (Owner("run", run_id).key,)
            ).fetchone()
        return Location(*row) if row else None

    def notes(self, owner: Owner) -> list[Location]:
        """What was said of `owner`, in the order in which it came."""
        with self._lock:
            rows = self._db.execute(
                "select segment, offset, length, digest from notes where key = ? order by id limit ?",
                (owner.key, self._notes_max),
            ).fetchall()
        return [Location(*row) for row in rows]

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
        with self._lock:
            for start in range(0, len(keys), KEYS_AT_ONCE):
                some = keys[start : start + KEYS_AT_ONCE]
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
