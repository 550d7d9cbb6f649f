"""The files that evidence is made from, cut into parts of lines that are worked on by themselves."""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from distill.engine.sources import OWN, READERS

BLOCK_BYTES: Final = 1 << 20
NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Input:
    """A file of a source, as far as it is read: bytes from `end` on are not there yet.

    `name` is what provenance calls it: the segment's own name, or `<source>/<file>` for an imported one.
    """

    kind: str
    name: str
    path: Path
    end: int


@dataclass(frozen=True, slots=True)
class Part:
    """Whole lines of an input, from byte `start` up to `end`."""

    kind: str
    segment: str
    path: Path
    number: int
    start: int
    end: int

    @property
    def name(self) -> str:
        """A name for files that are made of it, the same wherever they are made."""
        stem = self.segment.removesuffix(".jsonl")
        if self.kind != OWN:
            known = hashlib.sha256(self.segment.encode()).hexdigest()[:8]
            stem = f"{NOT_IN_NAMES.sub('-', stem)[:80]}-{known}"
        return f"{stem}.{self.number:05d}"


@dataclass(frozen=True, slots=True)
class RawLine:
    """A line as it lies in the file, its line feed included. `data` is None for one that is too long."""

    offset: int
    length: int
    sha256: bytes
    data: bytes | None


def imported(folder: Path) -> list[Input]:
    """What lies in `folder/<source>/*.jsonl`, in the order of names."""
    return [
        Input(kind, f"{kind}/{path.name}", path, path.stat().st_size)
        for kind in sorted(set(READERS) - {OWN})
        for path in sorted((folder / kind).glob("*.jsonl"))
    ]


def cut(source: Input, part_bytes: int) -> list[Part]:
    """Parts of about `part_bytes`: a line belongs to the part that its first byte is in.

    What was cut once stays as it is when the file grows, but for its last part.
    """
    parts: list[Part] = []
    with source.path.open("rb", buffering=0) as file:
        start = 0
        for number, at in enumerate(range(part_bytes, source.end + part_bytes, part_bytes)):
            end = _line_start(file.fileno(), at, source.end)
            if end > start:
                parts.append(Part(source.kind, source.name, source.path, number, start, end))
            start = end
    return parts


def _line_start(fd: int, at: int, end: int) -> int:
    """Where the first line at or beyond `at` begins; `end` when none does."""
    at -= 1
    while at < end:
        block = os.pread(fd, min(BLOCK_BYTES, end - at), at)
        if not block:
            break
        found = block.find(b"\n")
        if found >= 0:
            return at + found + 1
        at += len(block)
    return end


def digest(part: Part) -> bytes:
    """sha256 of the part's bytes."""
    state = hashlib.sha256()
    with part.path.open("rb", buffering=0) as file:
        for block in _blocks(file, part.start, part.end):
            state.update(block)
    return state.digest()


def lines(part: Part, line_bytes_max: int) -> Iterator[RawLine]:
    """The lines of a part, in memory one at a time and never more than `line_bytes_max` of one."""
    offset = part.start
    with part.path.open("rb", buffering=BLOCK_BYTES) as file:
        file.seek(offset)
        while offset < part.end:
            data = file.readline(min(line_bytes_max, part.end - offset) + 1)
            if not data:
                return
            if len(data) > line_bytes_max and not data.endswith(b"\n"):
                line = _too_long(file, offset, data, part.end)
            else:
                line = RawLine(offset, len(data), hashlib.sha256(data).digest(), data)
            yield line
            offset += line.length


def _too_long(file: IO[bytes], offset: int, begun: bytes, end: int) -> RawLine:
    """Read on to the end of a line without keeping it."""
    state, length = hashlib.sha256(begun), len(begun)
    while offset + length < end:
        data = file.readline(min(BLOCK_BYTES, end - offset - length))
        state.update(data)
        length += len(data)
        if not data or data.endswith(b"\n"):
            break
    return RawLine(offset, length, state.digest(), None)


def _blocks(file: IO[bytes], start: int, end: int) -> Iterator[bytes]:
    while start < end:
        block = os.pread(file.fileno(), min(BLOCK_BYTES, end - start), start)
        if not block:
            return
        yield block
        start += len(block)


def by_source(parts: Sequence[Part]) -> dict[str, list[Part]]:
    """The parts of each source, in order."""
    found: dict[str, list[Part]] = {}
    for part in parts:
        found.setdefault(part.kind, []).append(part)
    return found
