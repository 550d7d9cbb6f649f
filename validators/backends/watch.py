"""Follows the roster file: a newer one replaces the snapshot as a whole, a broken one changes nothing."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import structlog

from validators.backends.parquet import BrokenRoster, ParquetRoster
from validators.backends.roster import Keys

log = structlog.get_logger(__name__)

Stamp = tuple[int, int, int]


class RosterFile:
    """The snapshot of a file. `look` is called now and then, from a thread: it reads only what is new."""

    def __init__(self, path: Path, keys: Keys, *, bytes_max: int) -> None:
        self._path = path
        self._keys = keys
        self._bytes_max = bytes_max
        self._seen: Stamp | None = None
        self.current: ParquetRoster | None = None
        self.problem: str | None = "the roster has not been read yet"

    def look(self) -> None:
        """Read the file if it is another than the one seen last. What is wrong with it is in `problem`."""
        stamp: Stamp | None = None
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return
            roster = self._load(stamp)
            if self._stamp() != stamp:
                return  # written to meanwhile: the next look reads it
        except FileNotFoundError:
            self._refuse("the roster file does not exist", None)
        except (OSError, BrokenRoster) as error:
            self._refuse(f"the roster file is refused: {error}", stamp)
        else:
            self._seen, self.current, self.problem = stamp, roster, None
            pa.default_memory_pool().release_unused()  # reading takes more than keeping
            log.info("roster read", rows=roster.info.rows, sha256=roster.info.sha256[:12])

    def _load(self, stamp: Stamp) -> ParquetRoster:
        if stamp[1] > self._bytes_max:
            raise BrokenRoster(f"it has {stamp[1]} bytes; at most {self._bytes_max} are read")
        as_of = datetime.fromtimestamp(stamp[0] / 1e9, UTC).date().isoformat()
        return ParquetRoster(self._path.read_bytes(), as_of=as_of, keys=self._keys)

    def _stamp(self) -> Stamp:
        found = self._path.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _refuse(self, problem: str, stamp: Stamp | None) -> None:
        self._seen = stamp
        if problem != self.problem:
            log.error("roster refused", reason=problem)
        self.problem = problem
