"""One request on a short way, how it is answered without ASGI, and who does."""

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol, TypeVar, cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

BODILESS: Final = frozenset({204, 304})
"""Statuses of answers that have no body, whatever their heads say."""

Headers = Iterable[tuple[bytes, bytes]]

Found = TypeVar("Found")
Facts = dict[Callable[[Scope], Any], Any]
"""What was found in a head, by the function that looked."""


class Standing:
    """The headers that every answer has, put together once for as long as they stay the same: a second."""

    def __init__(self) -> None:
        self._headers: Headers = ()
        self._lines = b""

    def lines(self, headers: Headers) -> bytes:
        if headers is not self._headers:
            self._lines = b"".join(b"%b: %b\r\n" % header for header in headers)
            self._headers = headers
        return self._lines


standing: Final = Standing()


class DirectExchange:
    """One request that is answered without a task and without ASGI.

    `respond` once; or `start`, then `send` for each piece and `finish`, or `cut` where the rest is missing.

    `scope` is the ASGI scope. `when_gone` is called if the client leaves before the end of the answer,
    `when_full` when it takes no more for now and `when_ready` when it does again: until then a few pieces
    more do no harm, but what comes from elsewhere has to be held up there.
    """

    __slots__ = ("_chunked", "_cycle", "_facts", "body", "scope", "when_full", "when_gone", "when_ready")

    def __init__(self, cycle: RequestResponseCycle, body: bytes, facts: Facts | None = None) -> None:
        """`facts` are those of a head that comes again and again."""
        self._cycle = cycle
        self._facts = {} if facts is None else facts
        self._chunked = False
        self.scope = cast("Scope", cycle.scope)
        self.body = body
        self.when_gone: Callable[[], None] | None = None
        self.when_full: Callable[[], None] | None = None
        self.when_ready: Callable[[], None] | None = None

    def in_head(self, look: Callable[[Scope], Found]) -> Found:
        """What `look` finds in the headers, and in nothing else: it looks once at a head that comes again."""
        try:
            found: Found = self._facts[look]
        except KeyError:
            found = self._facts[look] = look(self.scope)
        return found

    def respond(self, status: int, headers: Headers | bytes, *body: bytes) -> None:
        """Answer, in one write. `headers` may be finished lines, `body` may be in pieces."""
        cycle = self._cycle
        if not cycle.disconnected:
            lines = self._head(status, headers)
            lines.append(b"content-length: %d\r\n\r\n" % sum(map(len, body)))
            if self.scope["method"] != "HEAD":
                lines += body
            cycle.transport.write(b"".join(lines))
        self._end()

    def start(self, status: int, headers: Headers, length: int | None) -> None:
        """Begin an answer of `length` bytes, or of as many as there come (None)."""
        cycle = self._cycle
        cycle.response_started = True
        if cycle.disconnected:
            return
        # Who speaks HTTP/1.0 knows no chunks: there the end of the connection is that of the body.
        self._chunked = length is None and status not in BODILESS and self.scope["http_version"] != "1.0"
        lines = self._head(status, headers)
        if length is not None:
            lines.append(b"content-length: %d\r\n" % length)
        elif self._chunked:
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        cycle.transport.write(b"".join(lines))
        if cycle.flow.write_paused and self.when_full is not None:
            self.when_full()

    def send(self, data: bytes) -> None:
        """Pass a piece of the body on. It has at least one byte."""
        if not self._cycle.disconnected:
            self._cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def finish(self) -> None:
        """The body that was begun is whole."""
        if self._chunked and not self._cycle.disconnected:
            self._cycle.transport.write(b"0\r\n\r\n")
        self._end()

    def cut(self) -> None:
        """The rest of the body will not come: close the connection, so that nobody takes half for a whole."""
        self._forget()
        self._cycle.transport.close()

    def _head(self, status: int, headers: Headers | bytes) -> list[bytes]:
        cycle = self._cycle
        lines = [STATUS_LINE[status], standing.lines(cycle.default_headers)]
        if isinstance(headers, bytes):
            lines.append(headers)
        else:
            for name, value in headers:
                lines += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        return lines

    def _forget(self) -> None:
        self.when_gone = self.when_full = self.when_ready = None

    def _end(self) -> None:
        self._forget()
        cycle = self._cycle
        if cycle.disconnected:
            return
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()


class Door(Protocol):
    """Answers the usual requests of one route without a task for each.

    It is offered those by POST whose body has a known length, of at most `body_bytes_max`. `path` is a
    template as routes have it. `take` returns False for what it does not answer, errors included: then the
    request takes the ordinary way, as if nobody had looked at it.
    """

    path: str
    body_bytes_max: int

    def take(self, exchange: DirectExchange) -> bool: ...
