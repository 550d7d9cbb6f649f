"""Hashes of files and of parts of them, each byte read once however many receipts speak of it."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CHUNK_BYTES: Final = 1 << 20

OnBytes = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Part:
    """What the bytes from `start` to `end` of a file are."""

    sha256: str
    lines: int
    bytes: int


def parts_of(path: Path, start: int, ends: Iterable[int], on_bytes: OnBytes) -> dict[int, Part]:
    """The parts from `start` to each of `ends`; ends beyond the file are left out. Raises `OSError`."""
    found: dict[int, Part] = {}
    digest, lines, at = hashlib.sha256(), 0, start
    with path.open("rb") as file:
        file.seek(start)
        for end in sorted(set(ends)):
            while at < end and (chunk := file.read(min(CHUNK_BYTES, end - at))):
                digest.update(chunk)
                lines += chunk.count(b"\n")
                at += len(chunk)
                on_bytes(len(chunk))
            if at < end:
                break
            found[end] = Part(digest.hexdigest(), lines, at - start)
    return found


def whole(path: Path, on_bytes: OnBytes) -> Part:
    """All of a file. Raises `OSError`."""
    size = path.stat().st_size
    return parts_of(path, 0, [size], on_bytes).get(size, Part("", 0, 0))
