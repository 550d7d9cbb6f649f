"""The Merkle tree of RFC 6962: one root for many entries, of which each can be proven alone."""

import hashlib
from collections.abc import Sequence


def root(entries: Sequence[bytes]) -> str:
    """The root over the entries in their order, as 64 hex digits."""
    return _root([hashlib.sha256(b"\x00" + entry).digest() for entry in entries]).hex()


def _root(level: list[bytes]) -> bytes:
    if not level:
        return hashlib.sha256(b"").digest()
    while len(level) > 1:  # pairs from the left, an odd last one as it is: the tree of the RFC, from below
        level = [
            hashlib.sha256(b"\x01" + level[at] + level[at + 1]).digest() if at + 1 < len(level) else level[at]
            for at in range(0, len(level), 2)
        ]
    return level[0]
