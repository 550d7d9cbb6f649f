"""The hottest vectors on disk, so that a restart is not cold.

    magic | one record after another: key (16 bytes), length (u32), packed entry | sha256 of all before

The keys hold the model's digest, so a file from before a model was replaced is harmless.
"""

import hashlib
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog

from embedd.engine.cache import KEY_BYTES, Entry, Snapshot, VectorCache
from services import files

log = structlog.get_logger(__name__)

MAGIC: Final = b"stillhouse embedd warm 1\n"
RECORD: Final = struct.Struct(f"<{KEY_BYTES}sI")
DIGEST_BYTES: Final = 32


class Damaged(ValueError):
    """The file is not what was written."""


class WarmFile:
    """One file of one process. Written as a whole and read as a whole, never in place."""

    def __init__(self, path: Path, *, bytes_max: int) -> None:
        self._path = path
        self._bytes_max = bytes_max

    def save(self, snapshot: Snapshot) -> int:
        """Write the hottest entries that fit; how many. Blocking: run it in a thread."""
        if not self._bytes_max:
            return 0
        records = list(self._records(snapshot))
        body = MAGIC + b"".join(reversed(records))  # the hottest last, so that reading in order ends with it
        self._path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(self._path, body + hashlib.sha256(body).digest(), mode=0o600)
        return len(records)

    def _records(self, snapshot: Snapshot) -> Iterator[bytes]:
        size = len(MAGIC) + DIGEST_BYTES
        for key, entry in snapshot.hottest_first():
            packed = entry.packed()
            size += RECORD.size + len(packed)
            if size > self._bytes_max:
                return
            yield RECORD.pack(key, len(packed)) + packed

    def load_into(self, cache: VectorCache) -> int:
        """Read the file into a cache; how many entries. A damaged one is set aside, with a warning."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return 0
        except OSError as error:
            log.warning("the warm file cannot be read", reason=error.strerror)
            return 0
        try:
            entries = list(_parse(content))
        except Damaged as error:
            aside = self._path.with_suffix(f".damaged-{time.time_ns()}")
            self._path.replace(aside)
            log.warning("the warm file is damaged and was set aside", reason=str(error), file=aside.name)
            return 0
        for key, entry in entries:
            cache.put(key, entry)
        return len(entries)


def _parse(content: bytes) -> Iterator[tuple[bytes, Entry]]:
    body, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    if not body.startswith(MAGIC):
        raise Damaged("it does not begin as such a file does")
    if hashlib.sha256(body).digest() != digest:
        raise Damaged("its checksum differs")
    at = len(MAGIC)
    while at < len(body):
        key, length = RECORD.unpack_from(body, at)
        at += RECORD.size
        entry = Entry.unpacked(body[at : at + length])
        if entry is None:
            raise Damaged("an entry's checksum differs")
        yield key, entry
        at += length
