"""How our ids become the engine's: a number stays one, a string becomes a UUID of its hash."""

import hashlib
import uuid

from schemas.vectors import PointId

StoredId = int | uuid.UUID


def stored_id(point: PointId) -> StoredId:
    """Numbers and UUIDs are different kinds to the engine, so `5` and `"5"` never meet."""
    if isinstance(point, int):
        return point
    return uuid.UUID(bytes=hashlib.sha256(point.encode()).digest()[:16])


def encode_cursor(stored: StoredId) -> str:
    return str(stored) if isinstance(stored, int) else f"u{stored.hex}"


def decode_cursor(cursor: str) -> StoredId:
    """Raises ValueError for anything that `encode_cursor` did not make."""
    if cursor.startswith("u") and len(cursor) == 33:
        return uuid.UUID(hex=cursor[1:])
    if cursor.isascii() and cursor.isdigit() and len(cursor) <= 16:
        return int(cursor)
    raise ValueError("not a cursor")
