"""From the raw bytes of a source to the evidence id that they must have."""

import orjson

from distill.engine.identity import id_of_turn
from distill.engine.sources import READERS, Turn, Unreadable


def evidence_id_of_line(kind: str, line: bytes) -> str:
    """Raises `ValueError` for a kind that is not known, and for bytes that give no evidence."""
    if kind not in READERS:
        raise ValueError(f"sources of kind {kind!r} are not known here")
    try:
        turn = READERS[kind](orjson.loads(line))
    except Unreadable as error:
        raise ValueError(str(error)) from None
    if not isinstance(turn, Turn):
        raise ValueError("the record is said of a call, and is none")  # noqa: TRY004 - a value, not a type
    return id_of_turn(kind, turn)
