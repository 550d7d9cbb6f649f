"""Heads that came before: who keeps a connection sends the same one over and over, and it is parsed once.

A head is known again by its bytes, all but the digits of its content-length. What the parser and our checks
made of them holds again, as both go by the bytes of a message alone. Kept are only heads whose requests took
a short way, so that strangers fill nothing, and only those in the plainest form.
"""

import re
from typing import Any, Final, NamedTuple

from starlette.types import Scope

from services.protocol.exchange import Door, Facts

HEAD_BYTES_MAX: Final = 4096
HEADS_MAX: Final = 256

END: Final = b"\r\n\r\n"
LENGTH_DIGITS_MAX: Final = 9
LENGTH: Final = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ?([0-9]{1,%d})\r\n" % LENGTH_DIGITS_MAX)
OF_ONE_REQUEST: Final = frozenset({b"expect", b"transfer-encoding", b"x-request-id", b"traceparent"})
"""Headers that no other request will say again, or that say more of a body than its length."""

OF_THE_HEAD: Final = (
    "type",
    "asgi",
    "http_version",
    "root_path",
    "method",
    "path",
    "raw_path",
    "query_string",
)
"""What is the same in the scopes of all requests with one head, on whichever connection."""

Headers = list[tuple[bytes, bytes]]


class Head(NamedTuple):
    """What was read from a head: most of a scope. `facts` is what its door found in it.

    `before` and `after` are its bytes around the digits of the content-length.
    """

    before: bytes
    after: bytes
    door: Door
    scope: dict[str, Any]
    headers: Headers
    length_place: int
    facts: Facts

    def begins(self, data: bytes) -> tuple[Headers, bytes] | None:
        """Headers and body of the one request that `data` is, where this is its head."""
        if not data.startswith(self.before):
            return None
        start = len(self.before)
        stop = data.find(b"\r", start, start + LENGTH_DIGITS_MAX + 1)
        digits = data[start:stop]
        if not (digits.isdigit() and data.startswith(self.after, stop)):
            return None
        body = data[stop + len(self.after) :]
        if int(digits) != len(body) or len(body) > self.door.body_bytes_max:
            return None
        headers = self.headers.copy()
        headers[self.length_place] = (b"content-length", digits)
        return headers, body


class Heads:
    """The heads of one process."""

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}

    def find(self, data: bytes) -> Head | None:
        """The head that `data`, which begins where a message may, seems to begin with, if it is known."""
        place = _length_in(data)
        return None if place is None else self._heads.get(_around(data, *place))

    def keep(self, data: bytes, scope: Scope, body: bytes, door: Door) -> None:
        """Remember the head of a request that `door` took, if `data` is that request and nothing else."""
        place = _length_in(data)
        if place is None:
            return
        start, stop, end = place
        names = [name for name, _ in scope["headers"]]
        if names.count(b"content-length") != 1 or not OF_ONE_REQUEST.isdisjoint(names):
            return
        if data[end:] != body or int(data[start:stop]) != len(body):
            return
        if len(self._heads) >= HEADS_MAX:
            self._heads.clear()
        said = {name: scope[name] for name in OF_THE_HEAD}
        at = names.index(b"content-length")
        head = Head(data[:start], data[stop:end], door, said, list(scope["headers"]), at, {})
        self._heads[_around(data, *place)] = head


def _length_in(data: bytes) -> tuple[int, int, int] | None:
    """Where the digits of the content-length begin and end, and where the head does."""
    end = data.find(END, 0, HEAD_BYTES_MAX) + len(END)
    length = LENGTH.search(data, 0, end - 2) if end >= len(END) else None
    return None if length is None else (*length.span(1), end)


def _around(data: bytes, start: int, stop: int, end: int) -> bytes:
    return data[:start] + data[stop:end]
