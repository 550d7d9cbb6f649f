"""The hottest vectors on disk, so that a restart is not cold.

    magic | one record after another: key (16 bytes), length (u32), when it was stored (f64, seconds of
    the epoch), packed entry | sha256 of all before

The keys hold the model's digest, so a file from before a model was replaced is harmless.
"""

import contextlib
import hashlib
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog

from embedd.engine.cache import KEY_BYTES, Entry, Snapshot, VectorCache
from services import files

log = structlog.get_logger(__name__)

MAGIC: Final = b"stillhouse embedd warm 2\n"
RECORD: Final = struct.Struct(f"<{KEY_BYTES}sId")
DIGEST_BYTES: Final = 32


class Damaged(ValueError):
    """The file is not what was written."""


class WarmFile:
    """One file of one process. Written as a whole and read as a whole, never in place."""

    def __init__(self, path: Path, *, bytes_max: int) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._turn = threading.Lock()

    def save(self, snapshot: Snapshot) -> int:
        """Write the hottest entries that fit; how many. Blocking: run it in a thread.

        A file that cannot be written is a warning: without it the next start is cold, and that is all.
        """
        if not self._bytes_max:
            return 0
        with self._turn:  # the write of an interval may still be under way when the last one comes
            records = list(self._records(snapshot))
            body = MAGIC + b"".join(reversed(records))  # hottest last, so that reading in order ends with it
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                files.replace(self._path, body + hashlib.sha256(body).digest(), mode=0o600)
            except OSError as error:
                log.warning("the warm file cannot be written", reason=error.strerror)
                return 0
        return len(records)

    def _records(self, snapshot: Snapshot) -> Iterator[bytes]:
        size = len(MAGIC) + DIGEST_BYTES
        now = time.time()
        for key, entry, age_s in snapshot.hottest_first():
            packed = entry.packed()
            size += RECORD.size + len(packed)
            if size > self._bytes_max:
                return
            yield RECORD.pack(key, len(packed), now - age_s) + packed

    def load_into(self, cache: VectorCache) -> int:
        """Read the file into a cache; how many entries. A damaged one is set aside, with a warning."""
        if not self._bytes_max:
            return 0
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
            aside = self._path.with_suffix(".damaged")
            log.warning("the warm file is damaged and is set aside", reason=str(error), file=aside.name)
            with contextlib.suppress(OSError):  # then the next write replaces it
                self._path.replace(aside)
            return 0
        now = time.time()
        for key, entry, stored_at in entries:
            cache.put(key, entry, age_s=max(0.0, now - stored_at))
        log.info("warm start", entries=len(entries))
        return len(entries)


def _parse(content: bytes) -> Iterator[tuple[bytes, Entry, float]]:
    body, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    if not body.startswith(MAGIC):
        raise Damaged("it does not begin as such a file does")
    if hashlib.sha256(body).digest() != digest:
        raise Damaged("its checksum differs")
    at = len(MAGIC)
    while at < len(body):
        key, length, stored_at = RECORD.unpack_from(body, at)
        at += RECORD.size
        entry = Entry.unpacked(body[at : at + length])
        if entry is None:
            raise Damaged("an entry's checksum differs")
        yield key, entry, stored_at
        at += length
