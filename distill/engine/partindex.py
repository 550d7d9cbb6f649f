"""What the first reading of a part leaves behind: where its records lie, and the keys by which they join.

Arrays are sorted by key, with fences at each value of a key's first byte, so that all parts together can be
gone through range by range, in little memory.
"""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from services import files

MAGIC: Final = b"PARTIDX1"
FENCES: Final = 256

Table = NDArray[np.void]
Halves = NDArray[np.uint64]

ROW: Final = np.dtype(
    [("offset", "<u8"), ("length", "<u4"), ("kind", "u1"), ("evidence_id", "V32"), ("sha256", "V32")]
)
"""One for each line, in order. `kind` is one of the three below."""
RUN: Final = np.dtype([("hi", "<u8"), ("lo", "<u8"), ("dhi", "<u8"), ("dlo", "<u8"), ("row", "<u4")])
"""A run by its key, with the digest that tells a repetition from a conflict."""
NOTE: Final = np.dtype(
    [
        ("hi", "<u8"),
        ("lo", "<u8"),
        ("dhi", "<u8"),
        ("dlo", "<u8"),
        ("ts", "<i8"),
        ("offset", "<u8"),
        ("length", "<u4"),
        ("row", "<u4"),
        ("what", "u1"),
        ("verdict", "u1"),
    ]
)
"""A verdict, feedback or review by the key of what it is about."""
ATTEMPT: Final = np.dtype(
    [
        ("hi", "<u8"),
        ("lo", "<u8"),
        ("task", "<u8"),
        ("ts", "<i8"),
        ("name_hi", "<u8"),
        ("name_lo", "<u8"),
        ("run_hi", "<u8"),
        ("run_lo", "<u8"),
        ("repairs_hi", "<u8"),
        ("repairs_lo", "<u8"),
        ("explicit", "u1"),
        ("verdict", "u1"),
        ("row", "<u4"),
        ("evidence_id", "V32"),
    ]
)
"""A run in an episode, by the episode's key; `name` is how its run's id begins, for ties in time."""

TABLES: Final[Mapping[str, np.dtype[np.void]]] = {
    "rows": ROW,
    "runs": RUN,
    "run_notes": NOTE,
    "episode_notes": NOTE,
    "reviews": NOTE,
    "attempts": ATTEMPT,
}
KEYED: Final = ("runs", "run_notes", "episode_notes", "attempts")

BAD, IS_RUN, IS_NOTE = 0, 1, 2
VERDICT, FEEDBACK, REVIEW = 0, 1, 2
NO_VERDICT, ACCEPTED, OTHER_VERDICT = 0, 1, 2

Key = tuple[int, int]


def key_of(*parts: str) -> Key:
    """128 bits by which records find one another."""
    return halves(hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest())


def halves(digest: bytes) -> Key:
    """The first 128 bits."""
    hi, lo = struct.unpack_from(">QQ", digest)
    return hi, lo


def halves_of(ids: NDArray[np.void]) -> tuple[Halves, Halves]:
    """The same of many ids of 32 bytes; ordered by these numbers, ids are in their own order."""
    words = np.frombuffer(np.ascontiguousarray(ids).tobytes(), ">u8").reshape(-1, 4)
    return words[:, 0].astype(np.uint64), words[:, 1].astype(np.uint64)


@dataclass(frozen=True, slots=True)
class Bad:
    """A line that is no record, and why."""

    row: int
    code: str
    detail: str


def write(path: Path, tables: Mapping[str, Table], bad: list[Bad]) -> None:
    """Write an index; keyed tables are sorted here."""
    blobs: list[bytes] = []
    where: dict[str, Any] = {}
    offset = 0
    for name in TABLES:
        table = tables[name]
        if name in KEYED:
            table = table[np.lexsort((table["row"], table["lo"], table["hi"]))]
        entry: dict[str, Any] = {"offset": offset, "count": len(table)}
        if name in KEYED:
            firsts = table["hi"] >> np.uint64(56)
            entry["fences"] = np.searchsorted(firsts, np.arange(FENCES + 1, dtype=np.uint64)).tolist()
        blob = table.tobytes()
        blobs.append(blob)
        where[name] = entry
        offset += len(blob)
    head = orjson.dumps({"tables": where, "bad": [[one.row, one.code, one.detail] for one in bad]})
    files.replace(path, b"".join([MAGIC, struct.pack("<Q", len(head)), head, *blobs]))


class PartIndex:
    """An index that was written. Reads what it is asked for, and keeps no file open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            magic, length = file.read(8), struct.unpack("<Q", file.read(8))[0]
            assert magic == MAGIC
            head = orjson.loads(file.read(length))
        self._base = 16 + length
        self._tables = head["tables"]
        self._bad = head["bad"]

    @cached_property
    def bad(self) -> dict[int, Bad]:
        return {row: Bad(row, code, detail) for row, code, detail in self._bad}

    def count(self, name: str) -> int:
        return int(self._tables[name]["count"])

    def table(self, name: str, first: int = 0, last: int = FENCES) -> Table:
        """A table; of a keyed one the entries whose key's first byte is from `first` up to `last`."""
        entry, kind = self._tables[name], TABLES[name]
        start, end = 0, entry["count"]
        if name in KEYED:
            start, end = entry["fences"][first], entry["fences"][last]
        if start == end:
            return np.empty(0, kind)
        offset = self._base + entry["offset"] + start * kind.itemsize
        return np.fromfile(self._path, kind, end - start, offset=offset)
