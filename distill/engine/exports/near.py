"""Near duplicates: what a text is once its slots are masked, and which texts are alike but for a few words.

A text is put into normal form (NFKC, lower case, words alone), values that a template's slots hold are
masked, and what is left is cut into shingles of eight bytes. Two texts are near duplicates when their
shingle sets have a Jaccard index of at least 0.8. MinHash (one permutation, 128 bins) and locality-
sensitive bands find the pairs worth looking at. Sketches of 32 bytes tell apart most of those that only met
by chance; the index of each pair that is left is computed exactly.
"""

import hashlib
import re
import unicodedata
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Octets = NDArray[np.uint8]
Places = NDArray[np.intp]

JACCARD_MIN: Final = 0.8
SHINGLE_BYTES: Final = 8
BINS: Final = 128
BANDS: Final = 20
ROWS: Final = 6
"""Bins of a band: texts of index 0.8 meet in at least one of 20 bands with 99.8 %, those of 0.4 with 8 %."""

SKETCH_BYTES: Final = 32
SKETCH_EQUAL_MIN: Final = 16
SKETCHED_BYTES_MIN: Final = 128
"""The sketches of shorter texts say too little: most of their bins are empty."""

_MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)
_SECOND: Final = np.uint64(0xD6E8FEB86659FD93)
_SHIFT: Final = np.uint64(32)
_SKETCH_SHIFT: Final = np.uint64(40)
_BIN_STARTS: Final = (np.arange(BINS, dtype=np.uint64) << np.uint64(64 - 7)).astype(np.uint64)
_MIXERS: Final = np.random.Generator(np.random.PCG64(20261103)).integers(
    1, 2**63, size=(BANDS, ROWS), dtype=np.uint64
) * np.uint64(2) + np.uint64(1)


class _Kind(IntEnum):
    """What a byte is. Bytes of characters beyond ASCII are parts of words."""

    BETWEEN = 0
    WORD = 1
    CAPITAL = 2
    VALUE = 3


def _kinds() -> NDArray[np.uint8]:
    kinds = np.full(256, _Kind.WORD, dtype=np.uint8)
    for octet in range(128):
        character = chr(octet)
        if character.isdigit() or character == "@":
            kinds[octet] = _Kind.VALUE
        elif character.isupper():
            kinds[octet] = _Kind.CAPITAL
        elif not character.isalpha():
            kinds[octet] = _Kind.BETWEEN
    return kinds


_KINDS: Final = _kinds()
_LOWER: Final = np.frombuffer(bytes(range(256)).lower(), dtype=np.uint8)
_OPENS: Final = np.isin(np.arange(256), np.frombuffer(b" \"'(", dtype=np.uint8))
_ENDS: Final = np.isin(np.arange(256), np.frombuffer(b".!?\n", dtype=np.uint8))
_BEYOND_ASCII: Final = re.compile(r"[^\x00-\x7f]+")
_START: Final = b"\n\n"
"""Put before every text, so that its first word begins a sentence."""


def masked(text: str) -> bytes:
    """The text in normal form, UTF-8, the values of its slots masked. Equal for texts of one template.

    Masked are words with a digit or an `@` (ids, dates, money, addresses) and capitalised words inside a
    sentence (people, cities, clients); several in a row are one slot.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        text = _BEYOND_ASCII.sub(_folded, text)
    octets = np.frombuffer(_START + text.encode("utf-8", "surrogatepass") + b" ", dtype=np.uint8)
    kinds = _KINDS[octets]
    inside = kinds != _Kind.BETWEEN
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return b""
    slots = _slots(octets, kinds, starts)
    first = slots.copy()
    first[1:] &= ~slots[:-1]
    result = _LOWER[octets]
    result[ends] = 0x20
    result[starts[first]] = 0x30
    kept = inside
    kept[ends] = True
    kept &= ~_covered(len(octets), starts, ends, slots)
    kept[starts[first]] = True
    kept[ends[first]] = True
    form: bytes = result[kept].tobytes()
    return form


def _covered(size: int, starts: Places, ends: Places, slots: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The bytes of the slots, each with the one behind it."""
    steps = np.zeros(size + 1, dtype=np.int8)
    steps[starts[slots]] += 1
    steps[ends[slots] + 1] -= 1
    covered: NDArray[np.bool_] = steps[:size].cumsum(dtype=np.int8).view(np.bool_)
    return covered


def _slots(octets: Octets, kinds: Octets, starts: Places) -> NDArray[np.bool_]:
    """Which words hold a slot's value."""
    valued = np.maximum.reduceat(kinds, starts) == _Kind.VALUE
    before = octets[starts - 1]
    opened = _OPENS[before]
    before = np.where(opened, octets[starts - 2], before)
    slots: NDArray[np.bool_] = valued | ((kinds[starts] == _Kind.CAPITAL) & ~_ENDS[before])
    return slots


def _folded(found: re.Match[str]) -> str:
    """Characters beyond ASCII as the form has them: letters in lower case, all else a space."""
    return "".join([one.casefold() if one.isalnum() else " " for one in found[0]])


def shingles(form: bytes) -> Hashes:
    """The hashes of a masked text's shingles, sorted, each once. A text shorter than one shingle is one."""
    data = form.ljust(SHINGLE_BYTES)
    windows: Hashes = np.ndarray(
        shape=(len(data) - SHINGLE_BYTES + 1,), dtype="<u8", buffer=data, strides=(1,)
    )
    hashes: Hashes = windows * _MULTIPLIER
    hashes ^= hashes >> _SHIFT
    hashes *= _SECOND
    hashes.sort()
    fresh = np.empty(len(hashes), dtype=np.bool_)
    fresh[0] = True
    np.not_equal(hashes[1:], hashes[:-1], out=fresh[1:])
    return hashes[fresh]


def signature(sorted_hashes: Hashes) -> Hashes:
    """The smallest hash in each bin, of a shingle set."""
    starts = np.searchsorted(sorted_hashes, _BIN_STARTS)
    ends = np.append(starts[1:], len(sorted_hashes))
    smallest = sorted_hashes[np.minimum(starts, len(sorted_hashes) - 1)]
    filled = starts < ends
    if not filled.all():
        return _densified(smallest, filled)
    return smallest


def bands(smallest: Hashes) -> Hashes:
    """The 20 band keys of a signature. Texts that share one are worth comparing."""
    rows = smallest[: BANDS * ROWS].reshape(BANDS, ROWS)
    keys: Hashes = (rows * _MIXERS).sum(axis=1, dtype=np.uint64)
    keys ^= keys >> _SHIFT
    return keys


def sketch(smallest: Hashes) -> Octets:
    """A byte each of 32 of a signature's hashes."""
    return (smallest[:: BINS // SKETCH_BYTES] >> _SKETCH_SHIFT).astype(np.uint8)


def may_be_alike(one: Octets, other: Octets) -> NDArray[np.bool_]:
    """Whether texts of these sketches, row by row, are worth comparing.

    Of pairs of index 0.8, four in 100,000 are held not to be; of index 0.2, two in 10,000 are held to be.
    """
    likely: NDArray[np.bool_] = np.count_nonzero(one == other, axis=1) >= SKETCH_EQUAL_MIN
    return likely


def _densified(smallest: Hashes, filled: NDArray[np.bool_]) -> Hashes:
    """Give each empty bin the value of the next filled one, mixed with how far away that is."""
    places = np.flatnonzero(filled)
    following = places[np.searchsorted(places, np.arange(BINS)) % len(places)]
    distance = ((following - np.arange(BINS)) % BINS).astype(np.uint64)
    result: Hashes = smallest[following] + distance * _MULTIPLIER
    return result


def jaccard(one: Hashes, other: Hashes) -> float:
    """The exact index of two shingle sets, 0 to 1."""
    both = np.concatenate((one, other))
    both.sort()
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / (len(both) - shared)


def alike(one: Hashes, other: Hashes) -> bool:
    """Whether two texts are near duplicates. Sizes that cannot reach the index are not compared."""
    small, large = sorted((len(one), len(other)))
    return small >= JACCARD_MIN * large and jaccard(one, other) >= JACCARD_MIN


def key_of(data: bytes) -> int:
    """63 bits that stand for some bytes; never 0, which stands for none."""
    return (int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") >> 1) or 1
