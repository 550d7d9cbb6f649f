"""From the raw bytes of a source to the evidence id that they must have."""

from collections.abc import Callable, Mapping
from typing import Final

from distill.engine.identity import evidence_id_of
from schemas.runs import Run


def _of_run(line: bytes) -> str:
    return evidence_id_of(Run.model_validate_json(line))


KINDS: Final[Mapping[str, Callable[[bytes], str]]] = {"stillhouse": _of_run}


def evidence_id_of_line(kind: str, line: bytes) -> str:
    """Raises `ValueError` for a kind that is not known, and for bytes that give no evidence."""
    if kind not in KINDS:
        raise ValueError(f"sources of kind {kind!r} are not known here")
    return KINDS[kind](line)
