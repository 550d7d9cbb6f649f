"""Files that stages write and lists read: finished atomically, hashed as they are written, sorted by id."""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from schemas.evidence import ProductFile
from schemas.records import Record
from services import files

QUARANTINE: Final = "quarantine.jsonl"

ID_AT: Final = re.compile(rb'"evidence_id":"([0-9a-f]{64})"')


class ProductWriter:
    """Writes `<name>.tmp`; `finish` gives it its name. Left without `finish`, nothing remains."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(path.name + ".tmp")
        self._file: IO[bytes] = self._temporary.open("wb")
        self._digest = hashlib.sha256()
        self._lines = 0
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    @property
    def lines(self) -> int:
        return self._lines

    def write(self, record: Record) -> None:
        self.write_line(record.to_line())

    def write_line(self, line: bytes) -> None:
        self._file.write(line)
        self._digest.update(line)
        self._lines += 1
        self._bytes += len(line)

    def finish(self) -> ProductFile:
        """Make the file durable under its name."""
        files.put_in_place(self._file, self._temporary, self._path)
        return ProductFile(
            name=self._path.name, sha256=self._digest.hexdigest(), lines=self._lines, bytes=self._bytes
        )


def write_whole(path: Path, content: bytes, name: str) -> ProductFile:
    """Put a file in place at once; receipts call it `name`."""
    files.replace(path, content)
    return ProductFile(
        name=name,
        sha256=hashlib.sha256(content).hexdigest(),
        lines=content.count(b"\n"),
        bytes=len(content),
    )


def sha256_of(path: Path) -> str:
    """The hash of a whole file. Blocks for as long as reading it takes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def id_of(line: bytes) -> str:
    """The `evidence_id` of an evidence or scored line, without parsing the rest."""
    match = ID_AT.search(line)
    assert match is not None
    return match[1].decode()


def lines_from(path: Path, after: str | None = None) -> Iterator[bytes]:
    """The lines of a file sorted by `evidence_id`, from the first one beyond `after`. No file, no lines.

    The place is found by halving the file, so a deep page costs no more than the first.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        if after is not None:
            file.seek(_first_beyond(file, after))
        yield from file


def line_with(path: Path, evidence_id: str) -> bytes | None:
    """The line of exactly this id, or None."""
    before = f"{int(evidence_id, 16) - 1:064x}" if int(evidence_id, 16) else None
    for line in lines_from(path, before):
        return line if id_of(line) == evidence_id else None
    return None


def _first_beyond(file: IO[bytes], after: str) -> int:
    """The offset of the first line whose id is greater than `after`."""
    low, high = 0, file.seek(0, os.SEEK_END)
    while low < high:  # lines starting before `low` are not beyond, the answer is at most `high`
        middle = (low + high) // 2
        file.seek(middle)
        if middle:
            file.seek(middle - 1)
            file.readline()
        start = file.tell()
        line = file.readline()
        if not line or start >= high or id_of(line) > after:
            high = middle
        else:
            low = start + len(line)
    file.seek(low)
    return low
