"""What a caller says of its own patience and wishes, beside the request."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

MARGIN: Final = 0.05
MARGIN_MAX_S: Final = 0.5
"""Our own 504 shall reach a caller before it gives up."""

RETRIES: Final = "x-stainless-retry-count"
PATIENCE: Final = "x-stainless-read-timeout"
ALLOW_DROP: Final = "x-allow-drop"
CACHING: Final = "cache-control"
CALLER_HEADERS: Final = (RETRIES, PATIENCE, ALLOW_DROP, CACHING)
"""All that `caller_of` reads."""


@dataclass(frozen=True, slots=True)
class Caller:
    """`patience_s` is how long it waits for an answer, or for the next piece of a stream; None is not said.

    `retries` is how often its client has sent this request before. With `allow_drop` it would rather have
    an answer without what a provider lacks. `fresh` asks for an answer that is not from the cache.
    """

    patience_s: float | None = None
    retries: int = 0
    allow_drop: bool = False
    fresh: bool = False


ANYBODY: Final = Caller()


def caller_of(headers: Mapping[str, str]) -> Caller:
    """Read the headers that official clients send, and ours. What makes no sense is not heeded."""
    return Caller(
        patience_s=_patience_s(headers.get(PATIENCE, "")),
        retries=_count(headers.get(RETRIES, "")),
        allow_drop=headers.get(ALLOW_DROP, "").strip().lower() == "true",
        fresh="no-cache" in headers.get(CACHING, "").lower(),
    )


def _patience_s(value: str) -> float | None:
    try:
        said = float(value)
    except ValueError:
        return None
    if not (math.isfinite(said) and said > 0):
        return None
    return said - min(MARGIN_MAX_S, said * MARGIN)


def _count(value: str) -> int:
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 3 else 0
