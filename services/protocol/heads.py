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
LENGTH: Final = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ?([0-9]{1,9})\r\n")
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
    """What was read from a head: most of a scope. `facts` is what its door found in it."""

    door: Door
    scope: dict[str, Any]
    headers: Headers
    length_place: int
    digits_start: int
    facts: Facts


class Heads:
    """The heads of one process."""

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}

    def find(self, data: bytes) -> tuple[Head, Headers, bytes] | None:
        """The head, headers and body of the one request that `data` is, where its head is known.

        `data` begins where a message may.
        """
        end = data.find(END, 0, HEAD_BYTES_MAX)
        length = LENGTH.search(data, 0, end + 2) if end > 0 else None
        if length is None:
            return None
        start, stop = length.span(1)
        head = self._heads.get(data[:start] + data[stop:end])
        if head is None or start != head.digits_start:
            return None
        body = data[end + len(END) :]
        if int(length[1]) != len(body) or len(body) > head.door.body_bytes_max:
            return None
        headers = head.headers.copy()
        headers[head.length_place] = (b"content-length", length[1])
        return head, headers, body

    def keep(self, data: bytes, scope: Scope, body: bytes, door: Door) -> None:
        """Remember the head of a request that `door` took, if `data` is that request and nothing else."""
        end = data.find(END, 0, HEAD_BYTES_MAX)
        length = LENGTH.search(data, 0, end + 2) if end > 0 else None
        if length is None or data[end + len(END) :] != body or int(length[1]) != len(body):
            return
        names = [name for name, _ in scope["headers"]]
        if names.count(b"content-length") != 1 or not OF_ONE_REQUEST.isdisjoint(names):
            return
        if len(self._heads) >= HEADS_MAX:
            self._heads.clear()
        start, stop = length.span(1)
        said = {name: scope[name] for name in OF_THE_HEAD}
        head = Head(door, said, list(scope["headers"]), names.index(b"content-length"), start, {})
        self._heads[data[:start] + data[stop:end]] = head
