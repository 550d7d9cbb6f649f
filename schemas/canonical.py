"""Canonical JSON (RFC 8785) and the ids made from it: the same bytes in every runtime."""

import hashlib
from typing import Any

import rfc8785


def canonical_bytes(value: Any) -> bytes:
    """The RFC 8785 form of a JSON value.

    Raises `ValueError` for NaN, infinities and integers beyond 2^53, which no two runtimes write alike.
    """
    return rfc8785.dumps(value)


def content_id(value: Any) -> str:
    """The sha256 (64 hex digits) of a JSON value's canonical form."""
    return hashlib.sha256(canonical_bytes(value)).hexdigest()
