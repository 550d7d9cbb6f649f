"""Follows the roster file: a newer one replaces the snapshot as a whole, a broken one changes nothing."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import BinaryIO, Final

import structlog

from validators.backends.index import Index
from validators.backends.roster import BrokenRoster

log = structlog.get_logger(__name__)

Stamp = tuple[int, int, int]
Compile = Callable[[Path, BinaryIO, bool], None]
"""Writes the index of a roster; the truth value says whether others are being served meanwhile."""

PROGRAM: Final = Path(__file__).with_name("compile.py")
UNFIT: Final = 3  # the status by which the program says that the file is at fault
NICE: Final = 5
RETRY_S: Final = 30.0
REASON_CHARS_MAX: Final = 500


def stamp_of(path: Path) -> Stamp:
    """What tells one state of a file from another. Raises `OSError`."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


class Helper:
    """Compiles in a process of its own. Raises `BrokenRoster`, and `OSError` for what may be better later."""

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def __call__(self, path: Path, out: BinaryIO, serving: bool) -> None:
        nice = str(NICE if serving else 0)
        command = [sys.executable, "-P", str(PROGRAM), str(path), str(out.fileno()), nice]
        with subprocess.Popen(  # noqa: S603 - our own program
            command, stdout=subprocess.PIPE, pass_fds=(out.fileno(),)
        ) as process:
            self._process = process
            try:
                told, _ = process.communicate(timeout=self._timeout_s)
            except subprocess.TimeoutExpired as error:
                process.kill()
                raise BrokenRoster(f"it could not be read within {self._timeout_s:g} s") from error
            finally:
                self._process = None
        reason = told.decode(errors="replace")[:REASON_CHARS_MAX]
        if process.returncode == UNFIT:
            raise BrokenRoster(reason)
        if process.returncode:
            stopped = "it was being read when the daemon stopped" if self._closed else ""
            raise OSError(reason or stopped or f"reading it ended with status {process.returncode}")

    def close(self) -> None:
        """End what runs, so that a stopping daemon does not wait for it."""
        self._closed = True
        if (process := self._process) is not None:
            process.kill()


class RosterFile:
    """The snapshot of a file. `look` is called now and then, from a thread: it reads only what is new."""

    def __init__(self, path: Path, compile_: Compile, *, bytes_max: int) -> None:
        self._path = path
        self._compile = compile_
        self._bytes_max = bytes_max
        self._seen: Stamp | None = None
        self._retry_at = inf
        self.current: Index | None = None
        self.problem: str | None = "the roster has not been read yet"

    def look(self) -> None:
        """Read the file if it is another than the one seen last. What is wrong with it is in `problem`."""
        stamp: Stamp | None = None
        try:
            stamp = stamp_of(self._path)
            if stamp == self._seen and time.monotonic() < self._retry_at:
                return
            index = self._load(stamp)
            if stamp_of(self._path) != stamp:
                return  # written to meanwhile: the next look reads it
        except FileNotFoundError:
            self._refuse("the roster file does not exist", None)
        except BrokenRoster as error:
            self._refuse(f"the roster file is refused: {error}", stamp)
        except OSError as error:
            self._refuse(f"the roster file cannot be read: {error}", stamp, retry_s=RETRY_S)
        else:
            self._seen, self.current, self.problem = stamp, index, None
            self._retry_at = inf
            log.info("roster read", rows=index.info.rows, sha256=index.info.sha256[:12])

    def _load(self, stamp: Stamp) -> Index:
        if stamp[1] > self._bytes_max:
            raise BrokenRoster(f"it has {stamp[1]} bytes; at most {self._bytes_max} are read")
        as_of = datetime.fromtimestamp(stamp[0] / 1e9, UTC).date().isoformat()
        with tempfile.TemporaryFile() as out:  # without a name: gone when the last who maps it is
            self._compile(self._path, out, self.current is not None)
            return Index(out, as_of=as_of)

    def _refuse(self, problem: str, stamp: Stamp | None, *, retry_s: float = inf) -> None:
        self._seen = stamp
        self._retry_at = time.monotonic() + retry_s
        if problem != self.problem:
            log.error("roster refused", reason=problem)
        self.problem = problem
