"""Segment files of the log: their names and order, their seals, and what is found in them at a start."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from pydantic import ValidationError

from schemas.evidence import SegmentManifest
from services import files
from services.errors import PlatformError

SEGMENT: Final = re.compile(r"runs-(?:([a-z0-9]{1,16})-)?([0-9]{6,})\.jsonl")
LINE_BYTES_MAX: Final = 1 << 28
"""No body, and so no line, is ever this long; a longer one is damage, and is not read into memory."""


class LogDamaged(PlatformError):
    """The log is not as it was written. Nothing is appended until somebody has looked at it."""

    code = "log_damaged"


class LogInUse(PlatformError):
    """Another process writes this log."""

    code = "log_in_use"


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """`runs-000001.jsonl`, or `runs-<writer>-000001.jsonl` for a writer with a name."""

    writer: str
    number: int

    def __str__(self) -> str:
        writer = f"{self.writer}-" if self.writer else ""
        return f"runs-{writer}{self.number:06d}.jsonl"

    @property
    def manifest(self) -> str:
        return str(self).removesuffix(".jsonl") + ".manifest.json"


@dataclass(frozen=True, slots=True)
class Line:
    """A whole line, its line feed included, and where it starts."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Torn:
    """An unfinished last line that was moved aside."""

    segment: str
    offset: int
    length: int
    saved_as: str


def lock_of(folder: Path, writer: str) -> Path:
    return folder / (f".lock-{writer}" if writer else ".lock")


def lock(folder: Path, writer: str) -> IO[bytes]:
    """Take a writer's segments for this process, until the returned file is closed. Raises `LogInUse`."""
    path = lock_of(folder, writer)
    try:
        held = files.lock(path)
    except BlockingIOError:
        holder = path.read_bytes()[:20].decode("ascii", "replace").strip() or "unknown"
        raise LogInUse(
            f"the log in {folder} is held by another distill (pid {holder}); stop it, or use another "
            "STILLHOUSE_DATA, or another DISTILL_WRITER_ID for a replica beside it"
        ) from None
    held.truncate()
    held.write(f"{os.getpid()}\n".encode())
    return held


def list_segments(folder: Path) -> list[SegmentName]:
    """All segments in order of writer and number. Raises `LogDamaged` when one of a row is missing."""
    found: dict[str, list[int]] = defaultdict(list)
    for path in folder.iterdir():
        if match := SEGMENT.fullmatch(path.name):
            found[match[1] or ""].append(int(match[2]))
    for writer, numbers in found.items():
        numbers.sort()
        for expected, number in enumerate(numbers, start=1):
            if number != expected:
                raise LogDamaged(
                    f"{SegmentName(writer, expected)} is missing from {folder}, while "
                    f"{SegmentName(writer, number)} is there; put it back"
                )
    return [SegmentName(writer, number) for writer in sorted(found) for number in found[writer]]


def read_lines(path: Path, start: int = 0, end: int | None = None) -> Iterator[Line]:
    """The lines of a segment from byte `start` to `end`; a last one without a line feed as it is."""
    offset = start
    with path.open("rb") as file:
        file.seek(start)
        while end is None or offset < end:
            data = file.readline(LINE_BYTES_MAX)
            if not data:
                return
            if len(data) == LINE_BYTES_MAX and not data.endswith(b"\n"):
                raise LogDamaged(f"{path.name}: the line at offset {offset} has no end")
            yield Line(offset, data)
            offset += len(data)


def save_torn_tail(path: Path) -> Torn | None:
    """Move what follows the last line feed to `<file>.torn-<offset>` and cut it off."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        offset = _end_of_last_line(file.fileno(), size)
        if offset == size:
            return None
        tail = os.pread(file.fileno(), size - offset, offset)
    saved = _unused(path.with_name(f"{path.name}.torn-{offset}"))
    files.replace(saved, tail)
    with path.open("rb+") as file:
        file.truncate(offset)
        os.fsync(file.fileno())
    return Torn(path.name, offset, len(tail), saved.name)


def whole_bytes(path: Path) -> int:
    """How many bytes of a segment are whole lines; another process may be writing the next one."""
    with path.open("rb") as file:
        return _end_of_last_line(file.fileno(), file.seek(0, os.SEEK_END))


def _unused(path: Path) -> Path:
    """The path, or one with a number behind it where an earlier tail was torn at the same place."""
    number = 1
    free = path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def _end_of_last_line(fd: int, size: int) -> int:
    step = 1 << 16
    end = size
    while end > 0:
        start = max(0, end - step)
        found = os.pread(fd, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def read_manifest(folder: Path, name: SegmentName) -> SegmentManifest | None:
    """The seal of a segment, or None while it is open."""
    try:
        return SegmentManifest.model_validate_json((folder / name.manifest).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise LogDamaged(f"{name.manifest} cannot be read: {error.error_count()} errors") from None
