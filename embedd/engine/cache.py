"""Vectors in memory, bounded in bytes: found by what they are of, never by what they were called."""

import copy
import hashlib
import struct
import time
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from cachetools import LFUCache, LRUCache

Policy = Literal["lru", "lfu"]

KEY_VERSION: Final = b"2"
KEY_BYTES: Final = 16
KEY_BASES_MAX: Final = 64
STAMP: Final = struct.Struct("<f")
"""Behind each vector in memory: when it was stored, in seconds of the cache's clock."""

CHECKSUM: Final = struct.Struct("<I")

TOKENS: Final = struct.Struct("<I")
"""In front of each vector, wherever it is kept: the tokens that its text was charged."""

SUFFIXES_MAX: Final = 64
"""Ways to write a vector (format and dimensions) that are kept; others are made anew each time."""

ENTRY_OVERHEAD_BYTES: Final = 400
"""What an entry costs beside its value: key, three dict slots, order node, objects, slack of the allocator.

`tests/bench/test_cache_memory.py` measures it against the memory of a process: with it, a full cache of
256 MiB is resident with 0.95 to 1.09 times that (384 and 768 dimensions, both policies, CPython 3.11).
"""


class Entry(NamedTuple):
    """A full native vector as little-endian float32 bytes, and the tokens its text was charged."""

    vector: bytes
    prompt_tokens: int

    def packed(self) -> bytes:
        """The entry as one value with a checksum, for other places than our own memory."""
        value = TOKENS.pack(self.prompt_tokens) + self.vector
        return CHECKSUM.pack(zlib.crc32(value)) + value

    @classmethod
    def unpacked(cls, data: bytes) -> "Entry | None":
        """The entry in what somebody else kept; None when that is damaged."""
        value = data[CHECKSUM.size :]
        if len(value) <= TOKENS.size or (len(value) - TOKENS.size) % 4:
            return None
        if CHECKSUM.unpack_from(data)[0] != zlib.crc32(value):
            return None
        return cls(value[TOKENS.size :], TOKENS.unpack_from(value)[0])


@lru_cache(maxsize=KEY_BASES_MAX)
def key_base(kind: str, digest: str, options: bytes) -> "hashlib.blake2b":
    """What all keys of one model under the same options begin with. It is shared: copy it to go on.

    Fields are length-prefixed, so that no two splits of the same characters give the same bytes.
    """
    base = hashlib.blake2b(KEY_VERSION, digest_size=KEY_BYTES)
    for part in (kind.encode(), digest.encode(), options):
        base.update(len(part).to_bytes(8, "little"))
        base.update(part)
    return base


def cache_key(base: "hashlib.blake2b", prefix: str, text: str) -> bytes:
    """The identity of a vector: the model and its options, the task prefix, the NFC form of the text."""
    key = base.copy()
    head = prefix.encode()
    key.update(len(head).to_bytes(8, "little") + head + composed(text).encode())
    return key.digest()


def composed(text: str) -> str:
    """The NFC form, which is also what is embedded: a vector must not depend on whose spelling came first."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _value_bytes(value: bytes) -> int:
    return len(value) + ENTRY_OVERHEAD_BYTES


class VectorCache:
    """Entries by key. Belongs to one event loop.

    `ttl_s` 0 keeps entries until they are pushed out.
    """

    def __init__(
        self,
        *,
        bytes_max: int,
        policy: Policy,
        ttl_s: float,
        on_evict: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        kind = _CountingLRU if policy == "lru" else _CountingLFU
        self._values: LRUCache[bytes, bytes] | LFUCache[bytes, bytes] = kind(bytes_max, on_evict)
        self._ttl_s = ttl_s
        self._clock = clock

    def get(self, key: bytes) -> Entry | None:
        try:
            value = self._values[key]
        except KeyError:
            return None
        end = len(value) - STAMP.size
        if self._ttl_s and self._clock() - STAMP.unpack_from(value, end)[0] > self._ttl_s:
            del self._values[key]
            return None
        return Entry(value[TOKENS.size : end], TOKENS.unpack_from(value)[0])

    def put(self, key: bytes, entry: Entry, *, age_s: float = 0.0) -> None:
        """Keep an entry, which somebody else may have kept for `age_s` seconds already."""
        if self._ttl_s and age_s > self._ttl_s:
            return
        value = TOKENS.pack(entry.prompt_tokens) + entry.vector + STAMP.pack(self._clock() - age_s)
        if _value_bytes(value) <= self._values.maxsize:
            self._values[key] = value

    def __len__(self) -> int:
        return len(self._values)

    @property
    def bytes(self) -> int:
        """What the entries are charged, overhead included."""
        return int(self._values.currsize)

    def snapshot(self) -> "Snapshot":
        """The entries as they are now, for another thread to read while this cache goes on."""
        return Snapshot(copy.copy(self._values), self._clock())


class Snapshot:
    """A copy of a cache's table; the values themselves are shared, since they never change."""

    def __init__(self, values: LRUCache[bytes, bytes] | LFUCache[bytes, bytes], taken_at: float) -> None:
        self._values = values
        self._taken_at = taken_at
        self._pop = LRUCache.popitem if isinstance(values, LRUCache) else LFUCache.popitem

    def hottest_first(self) -> Iterator[tuple[bytes, Entry, float]]:
        """All entries with their ages in seconds, those that would be evicted last first.

        Uses the snapshot up.
        """
        coldest_first = [self._pop(self._values) for _ in range(len(self._values))]
        for key, value in reversed(coldest_first):
            stored_at = STAMP.unpack_from(value, len(value) - STAMP.size)[0]
            entry = Entry(value[TOKENS.size : -STAMP.size], TOKENS.unpack_from(value)[0])
            yield key, entry, max(0.0, self._taken_at - stored_at)


class _CountingLRU(LRUCache[bytes, bytes]):
    def __init__(self, maxsize: int, on_evict: Callable[[], None]) -> None:
        super().__init__(maxsize, getsizeof=_value_bytes)
        self._on_evict = on_evict

    def popitem(self) -> tuple[bytes, bytes]:
        self._on_evict()
        return super().popitem()


class _CountingLFU(LFUCache[bytes, bytes]):
    def __init__(self, maxsize: int, on_evict: Callable[[], None]) -> None:
        super().__init__(maxsize, getsizeof=_value_bytes)
        self._on_evict = on_evict

    def popitem(self) -> tuple[bytes, bytes]:
        self._on_evict()
        return super().popitem()


class FragmentCache:
    """Finished JSON texts of vectors, so that a warm answer is put together and not encoded.

    Their keys are the vector's key and a suffix that says how it is written.
    """

    def __init__(self, *, bytes_max: int) -> None:
        self._fragments: LRUCache[bytes, bytes] = LRUCache(bytes_max, getsizeof=_value_bytes)
        self._suffixes: set[bytes] = set()

    def get(self, key: bytes) -> bytes | None:
        try:
            return self._fragments[key]
        except KeyError:
            return None

    def put(self, key: bytes, fragment: bytes) -> None:
        suffix = key[KEY_BYTES:]
        if suffix not in self._suffixes:
            if len(self._suffixes) >= SUFFIXES_MAX:
                return
            self._suffixes.add(suffix)
        if _value_bytes(fragment) <= self._fragments.maxsize:
            self._fragments[key] = fragment

    def forget(self, key: bytes) -> None:
        """Drop what was made of a vector that was computed anew."""
        for suffix in self._suffixes:
            self._fragments.pop(key + suffix, None)

    @property
    def bytes(self) -> int:
        return int(self._fragments.currsize)
