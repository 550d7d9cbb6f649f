"""From an evidence id to its line: a table of all ids in order, searched on the disk."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from distill.engine import shards
from distill.engine.partindex import halves_of
from distill.engine.products import ProductWriter
from distill.engine.shards import EvidenceManifest, EvidenceShard
from schemas.evidence import ProductFile

ENTRY: Final = np.dtype([("id", "V32"), ("offset", "<u8"), ("length", "<u4"), ("shard", "<u4")])
ID_BYTES: Final = 32
RANGE_ENTRIES = 1 << 17

Entries = NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Found:
    """Where a line of evidence lies: the shard's place in the manifest, and its bytes."""

    id: bytes
    shard: int
    offset: int
    length: int


def write_evidence(path: Path, lines: Sequence[tuple[bytes, bytes]]) -> tuple[ProductFile, bytes]:
    """Write lines that are in the order of their ids; return the file, and its own table of ids."""
    entries = np.zeros(len(lines), ENTRY)
    offset = 0
    with ProductWriter(path) as product:
        for number, (evidence_id, line) in enumerate(lines):
            entries[number] = (evidence_id, offset, len(line), 0)
            product.write_line(line)
            offset += len(line)
        return product.finish(), entries.tobytes()


def table_of(folder: Path, manifest: EvidenceManifest) -> Path:
    """The table of a manifest's ids."""
    digest = shards.digest_of([shard.evidence for shard in manifest.shards])
    return folder / shards.INDEX / f"all-{digest[:16]}.table"


def ids_of(index: Path, shard: EvidenceShard) -> Path:
    """The table of one shard's ids, in their order."""
    return index / f"{Path(shard.evidence.name).stem}.ids"


def found_in(entry: bytes) -> Found:
    """An entry of a table."""
    return Found(
        entry[:ID_BYTES],
        int.from_bytes(entry[44:48], "little"),
        int.from_bytes(entry[32:40], "little"),
        int.from_bytes(entry[40:44], "little"),
    )


def write_lookup(task: tuple[Path, EvidenceManifest]) -> None:
    """Merge the tables of all shards, range by range, so that memory does not grow with them."""
    folder, manifest = task
    path = table_of(folder, manifest)
    if path.exists():
        return
    tables = [ids_of(folder / shards.INDEX, shard) for shard in manifest.shards]
    fences = [_fences(table) for table in tables]
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        for first, last in _ranges(sum(int(fence[-1]) for fence in fences)):
            pieces = [
                _piece(table, shard, int(fence[first]), int(fence[last]))
                for shard, (table, fence) in enumerate(zip(tables, fences, strict=True))
            ]
            entries = np.concatenate([np.empty(0, ENTRY), *pieces])
            hi, lo = halves_of(entries["id"])
            file.write(entries[np.lexsort((lo, hi))].tobytes())
    temporary.replace(path)
    shards.keep_only(path.parent, {path.name}, "all-*.table")


def _fences(table: Path) -> NDArray[np.int64]:
    """Where ids with each first byte begin."""
    first = np.fromfile(table, np.uint8)[:: ENTRY.itemsize]
    return np.searchsorted(first, np.arange(257))


def _ranges(total: int) -> Iterator[tuple[int, int]]:
    count = 1
    while count < 256 and total / count > RANGE_ENTRIES:
        count *= 2
    step = 256 // count
    return ((first, first + step) for first in range(0, 256, step))


def _piece(table: Path, shard: int, start: int, end: int) -> Entries:
    entries = np.fromfile(table, ENTRY, end - start, offset=start * ENTRY.itemsize)
    entries["shard"] = shard
    return entries


class Lookup:
    """A table that was written, searched by reading some twenty entries of it. Close it after use."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._count = os.fstat(self._descriptor).st_size // ENTRY.itemsize

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()

    def find(self, evidence_id: bytes) -> Found | None:
        at = self._first_from(evidence_id)
        if at == self._count:
            return None
        found = self._entry(at)
        return found if found.id == evidence_id else None

    def after(self, evidence_id: bytes | None) -> Iterator[Found]:
        """The entries beyond an id, in order."""
        at = 0
        if evidence_id is not None:
            at = self._first_from(evidence_id)
            if at < self._count and self._entry(at).id == evidence_id:
                at += 1
        for place in range(at, self._count):
            yield self._entry(place)

    def _first_from(self, evidence_id: bytes) -> int:
        low, high = 0, self._count
        while low < high:
            middle = (low + high) // 2
            if os.pread(self._descriptor, ID_BYTES, middle * ENTRY.itemsize) < evidence_id:
                low = middle + 1
            else:
                high = middle
        return low

    def _entry(self, at: int) -> Found:
        return found_in(os.pread(self._descriptor, ENTRY.itemsize, at * ENTRY.itemsize))
