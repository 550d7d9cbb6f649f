"""Counts the tokens of an answer as it passes, for keys that may use so many a minute."""

import re
from collections.abc import Iterable
from typing import Final

from services.metering import TOKENS_HEADER

_TOLD: Final = TOKENS_HEADER.encode()
_REPORTED: Final = re.compile(rb'"(total|input|output)_tokens"\s*:\s*(\d{1,12})')
_TAIL_BYTES: Final = 64


class TokenMeter:
    """The tokens as reported, in the head or the body; one an event where nothing is."""

    def __init__(self) -> None:
        self._events = 0
        self._reported = {b"total": 0, b"input": 0, b"output": 0}
        self._tail = b""

    def head(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        for name, value in headers:
            if name == _TOLD and value.isdigit():
                self._reported[b"total"] = int(value)

    def feed(self, chunk: bytes) -> None:
        window = self._tail + chunk
        self._events += chunk.count(b"\ndata:") + chunk.startswith(b"data:")
        for match in _REPORTED.finditer(window):
            self._reported[match[1]] = max(self._reported[match[1]], int(match[2]))
        self._tail = window[-_TAIL_BYTES:]

    @property
    def tokens(self) -> int:
        reported = self._reported
        return reported[b"total"] or reported[b"input"] + reported[b"output"] or self._events
