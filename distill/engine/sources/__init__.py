"""Where evidence can come from: a reader for each kind of file, from a parsed line to a turn.

A reader is a pure function. It returns a `Turn`, or raises `Unreadable` with a code; our own log also has
records that are said of a turn, which are returned as they are.
"""

from collections.abc import Callable, Mapping
from typing import Final

from distill.engine.sources import langfuse, litellm, openai, stillhouse, tensorzero
from distill.engine.sources.turn import Json, Turn, Unreadable

OWN: Final = "stillhouse"

READERS: Final[Mapping[str, Callable[[Json], Turn | Json]]] = {
    OWN: stillhouse.read,
    "openai": openai.read,
    "litellm": litellm.read,
    "langfuse": langfuse.read,
    "tensorzero": tensorzero.read,
}

AGAIN: Final[Mapping[str, Callable[[Json], Turn | Json]]] = {**READERS, OWN: stillhouse.read_again}
"""The same for lines of calls that were read before."""

__all__ = ["AGAIN", "OWN", "READERS", "Json", "Turn", "Unreadable"]
