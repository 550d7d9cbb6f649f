"""A file of JSON lines by key that grows while work goes on, and is whole again after a crash.

Lines are made durable in groups. What a crash left of the last line is cut off at the next opening; of
several lines with one key the last one counts.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self

import orjson

from services import files
from services.errors import Conflict

LINE_BYTES_MAX: Final = 32 * 1024 * 1024
GROUP_LINES: Final = 64
GROUP_S: Final = 1.0

Key = tuple[str, int]
Line = dict[str, Any]


class Store:
    """Held open by one process. Everything here blocks."""

    def __init__(self, path: Path, key_of: Callable[[Line], Key], *, bytes_max: int) -> None:
        self._path = path
        self._key_of = key_of
        self._bytes_max = bytes_max
        self._places: dict[Key, tuple[int, int]] = {}
        self._unsynced = 0
        self._synced_at = time.monotonic()

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        files.sync_folder(self._path.parent)
        self._end = self._read()
        os.ftruncate(self._descriptor, self._end)
        return self

    def __exit__(self, *_: object) -> None:
        self._sync()
        os.close(self._descriptor)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: Key) -> bool:
        return key in self._places

    def get(self, key: Key) -> Line | None:
        place = self._places.get(key)
        return None if place is None else self._line(*place)

    def put(self, line: Line) -> None:
        """Append a line. Raises `Conflict` when it is too long, or the file full."""
        data = orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
        if len(data) > LINE_BYTES_MAX or self._end + len(data) > self._bytes_max:
            raise Conflict(
                f"{self._path.name} of {self._path.parent.name!r} has {self._end} bytes and cannot take"
                f" {len(data)} more; at most {self._bytes_max} in all and {LINE_BYTES_MAX} a line are kept",
                code="store_full",
            )
        if os.write(self._descriptor, data) != len(data):
            os.ftruncate(self._descriptor, self._end)
            raise OSError(f"{self._path} took only a part of a line")
        self._places[self._key_of(line)] = (self._end, len(data))
        self._end += len(data)
        self._unsynced += 1
        if self._unsynced >= GROUP_LINES or time.monotonic() - self._synced_at >= GROUP_S:
            self._sync()

    def sorted(self) -> Iterator[Line]:
        """The lines that count, in the order of their keys."""
        return (self._line(*self._places[key]) for key in sorted(self._places))

    def compact(self) -> None:
        """Leave only the lines that count, in the order of their keys."""
        temporary = self._path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            for line in self.sorted():
                file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
            files.put_in_place(file, temporary, self._path)
        os.close(self._descriptor)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND)
        self._end = self._read()

    def _line(self, offset: int, length: int) -> Line:
        line: Line = orjson.loads(os.pread(self._descriptor, length, offset))
        return line

    def _read(self) -> int:
        """Find the lines; return where the last whole one ends."""
        self._places.clear()
        offset = 0
        with self._path.open("rb") as file:
            while (data := file.readline(LINE_BYTES_MAX + 1)).endswith(b"\n"):
                try:
                    key = self._key_of(orjson.loads(data))
                except (orjson.JSONDecodeError, KeyError, TypeError):
                    self._check_last(file.read(1), offset)
                    return offset
                self._places[key] = (offset, len(data))
                offset += len(data)
            self._check_last(file.read(1), offset)
        return offset

    def _check_last(self, following: bytes, offset: int) -> None:
        """What cannot be read may only be the end, where a crash leaves it."""
        if following:
            raise Conflict(
                f"{self._path.name} of {self._path.parent.name!r} is damaged at byte {offset}; restore it, or"
                " move it away to begin anew",
                code="store_damaged",
            )

    def _sync(self) -> None:
        os.fsync(self._descriptor)
        self._unsynced = 0
        self._synced_at = time.monotonic()
