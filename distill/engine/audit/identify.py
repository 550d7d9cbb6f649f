"""Evidence ids, computed anew: from the raw bytes of a source, and from what evidence says of itself."""

from collections.abc import Mapping
from typing import Any

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


def evidence_id_of_content(evidence: Mapping[str, Any]) -> str:
    """The id that the content of an evidence record gives. Raises `ValueError` where it gives none."""
    try:
        given, source = evidence["input"], evidence["source"]
        turn = Turn(
            key=source["key"],
            messages=given["messages"],
            model=evidence["model"],
            output=evidence["output"],
            tools=given["tools"],
            params=given["params"],
            context=given["retrieved_context"],
            task=evidence["task"],
        )
        return id_of_turn(source["kind"], turn)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the record lacks a part: {error}") from None
