"""Word weights as numbers that any store can keep: what a text's words are, and what they score."""

import hashlib
import math
import struct
from collections.abc import Mapping
from typing import Final

from qdrant_edge import SparseVector

K: Final = 1.2
B: Final = 0.75
LENGTH_USUAL: Final = 256.0
"""The parameters of `bm25.model`, by which a word's weight tells how often it occurs."""

TIMES_MAX: Final = 64
WEIGHED_MAX: Final = 2000
"""Texts that are weighed without asking the index of words first, at most."""

PROPOSALS_MIN: Final = 500
PROPOSALS_SHARE: Final = 10
"""Texts that the index proposes for each that is wanted."""


def term(word: int) -> int:
    """The word among the 64-bit terms of a point (`terms.py`)."""
    digest = hashlib.blake2b(b"word" + struct.pack("<I", word), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def spelled(document: SparseVector) -> str:
    """The words as numbers with spaces between, each as often as it occurs, for an index that counts."""
    parts = []
    for word, times in counts(document).items():
        parts += [str(word)] * min(times, TIMES_MAX)
    return " ".join(parts)


def counts(document: SparseVector) -> dict[int, int]:
    """How often each word occurs, from its weight t (K + 1) / (t + N), where N grows with the length."""
    odds = [weight / (K + 1 - weight) for weight in document.values]
    total = sum(odds)
    length = K * (1 - B) * total / max(1e-9, 1 - K * B * total / LENGTH_USUAL)
    norm = K * (1 - B + B * length / LENGTH_USUAL)
    return {word: max(1, round(odd * norm)) for word, odd in zip(document.indices, odds, strict=True)}


def idf(texts: int, with_word: int) -> float:
    return math.log(1 + (texts - with_word + 0.5) / (with_word + 0.5))


def score(rarity: Mapping[int, float], document: SparseVector) -> float:
    weights = dict(zip(document.indices, document.values, strict=True))
    return sum(rare * weights.get(word, 0.0) for word, rare in rarity.items())
