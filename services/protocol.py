"""The server's side of HTTP/1.1: what is no HTTP gets the envelope too, and size and time are bounded."""

import asyncio
import time
from collections.abc import Callable, Iterable
from re import Pattern
from typing import Any, ClassVar, Final, Protocol, cast

from starlette.routing import compile_path
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from services import ids
from services.bounds import Bounds, Patience, Stage
from services.errors import InvalidRequest, PlatformError, RequestTimeout, Unavailable

JSON_TYPE: Final = b"application/json"

ARRIVED: Final = "stillhouse.arrived_s"
"""Where the scope of a request says when its first byte was read, by `time.perf_counter`."""

HEAD_BYTES_MAX: Final = 64 * 1024
"""Request line and headers together."""

HEADERS_MAX: Final = 256
"""Lines of a head: everybody who looks for one of them looks at all."""

DROPPED_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of a body that comes although its request was answered, so that its sender gets to read the answer."""

HELD_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of bodies on their way to doors."""

LENGTH_DIGITS_MAX: Final = 10

BODILESS: Final = frozenset({204, 304})
"""Statuses of answers that have no body, whatever their heads say."""

Headers = Iterable[tuple[bytes, bytes]]


class _Standing:
    """The headers that every answer has, put together once for as long as they stay the same: a second."""

    def __init__(self) -> None:
        self._headers: Headers = ()
        self._lines = b""

    def lines(self, headers: Headers) -> bytes:
        if headers is not self._headers:
            self._lines = b"".join(b"%b: %b\r\n" % header for header in headers)
            self._headers = headers
        return self._lines


_standing: Final = _Standing()


class DirectExchange:
    """One request that is answered without a task and without ASGI.

    `respond` once; or `start`, then `send` for each piece and `finish`, or `cut` where the rest is missing.

    `scope` is the ASGI scope. `when_gone` is called if the client leaves before the end of the answer,
    `when_full` when it takes no more for now and `when_ready` when it does again: until then a few pieces
    more do no harm, but what comes from elsewhere has to be held up there.
    """

    __slots__ = ("_chunked", "_cycle", "body", "scope", "when_full", "when_gone", "when_ready")

    def __init__(self, cycle: RequestResponseCycle, body: bytes) -> None:
        self._cycle = cycle
        self._chunked = False
        self.scope = cast("Scope", cycle.scope)
        self.body = body
        self.when_gone: Callable[[], None] | None = None
        self.when_full: Callable[[], None] | None = None
        self.when_ready: Callable[[], None] | None = None

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer, in one write."""
        cycle = self._cycle
        if not cycle.disconnected:
            lines = self._head(status, headers)
            lines += (b"content-length: %d\r\n\r\n" % len(body), body)
            cycle.transport.write(b"".join(lines))
        self._end()

    def start(self, status: int, headers: Headers, length: int | None) -> None:
        """Begin an answer of `length` bytes, or of as many as there come (None)."""
        cycle = self._cycle
        cycle.response_started = True
        if cycle.disconnected:
            return
        self._chunked = length is None and status not in BODILESS
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

    def _head(self, status: int, headers: Headers) -> list[bytes]:
        cycle = self._cycle
        lines = [STATUS_LINE[status], _standing.lines(cycle.default_headers)]
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


class Doors:
    """Several doors, found by the path of a request.

    `held_bytes` is the declared size of the bodies that are waited for, on all connections together. It has a
    limit, since nobody has looked at who sends them: with more to wait for, requests take the ordinary way.
    """

    def __init__(self, doors: Iterable[Door], *, held_bytes_max: int = HELD_BYTES_MAX) -> None:
        self.held_bytes = 0
        self.held_bytes_max = held_bytes_max
        self._exact: dict[str, Door] = {}
        self._templates: list[tuple[Pattern[str], Door]] = []
        for door in doors:
            if "{" in door.path:
                self._templates.append((compile_path(door.path)[0], door))  # as the router reads it
            else:
                self._exact[door.path] = door

    def find(self, path: str) -> Door | None:
        """The door of a path, if it has one."""
        door = self._exact.get(path)
        if door is None:
            for pattern, candidate in self._templates:
                if pattern.match(path):
                    return candidate
        return door


Direct = Door | Doors
"""What `services.daemon.build` can be given to answer requests directly: one door, or several."""

Porter = Callable[[DirectExchange], bool]
"""Turns away who may not come in, judging by the head alone: True if it did. Others take the ordinary way."""


def says_json(scope: Any) -> bool:
    """Whether the one content type that a request declares is JSON."""
    types = [value for name, value in scope["headers"] if name == b"content-type"]
    return len(types) == 1 and (types[0] == JSON_TYPE or types[0].startswith(JSON_TYPE + b";"))


def _length(scope: Any) -> int | None:
    """The size of a request's body in bytes, where it is declared, and not that of a compressed one."""
    length = None
    for name, value in scope["headers"]:
        if name == b"content-length":
            length = int(value) if len(value) < LENGTH_DIGITS_MAX and value.isdigit() else None
        elif name == b"content-encoding":
            return None
    return length


class EnvelopeProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which by itself answers in plain text, and waits without end for heads without end.

    Requests that have a door are held back until their bodies are there, and offered to it, where `admits`
    has nothing against them. All others are shown to the `porter` before there is a task for them.
    """

    stall_s_max: ClassVar = 120.0
    """Seconds for which a client may take nothing of what was written for it."""

    _in_head = False
    _head_bytes = 0
    _large_read = False
    _is_mixed = False
    _in_body = False
    _body_bytes = 0
    _fault: InvalidRequest | None = None

    def __init__(
        self,
        *args: Any,
        direct: Direct | None = None,
        admits: Callable[[Scope], bool] | None = None,
        porter: Porter | None = None,
        bounds: Bounds | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._doors = direct if isinstance(direct, Doors | None) else Doors([direct])
        self._admits = admits
        self._porter = porter
        self._bounds = bounds or Bounds()
        self._patience = Patience()
        self._held: tuple[RequestResponseCycle, Any, Door] | None = None
        self._exchange: DirectExchange | None = None
        self._held_bytes = 0
        self._offering = False
        self._under_way: RequestResponseCycle | None = None
        self._stall_watch: asyncio.TimerHandle | None = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._under_way = cycle
        door = self._door(cycle)
        if door is None:
            self._show(cycle, app)
        elif cycle.more_body:
            self._held = (cycle, app, door)
        elif self._offering:  # answered before `take` came back: many such in a row must not pile up
            self.loop.call_soon(self._offer, cycle, app, door)
        else:  # it was waiting behind another request of the same connection
            self._offer(cycle, app, door)

    def _show(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Let a request take the ordinary way, unless the porter turns it away."""
        if self._porter is None or self.flow.write_paused:
            super()._start_asgi_task(cycle, app)
            return
        if self._offering:  # as with doors, many in a row must not pile up
            self.loop.call_soon(self._show, cycle, app)
            return
        self._offering = True
        try:
            turned_away = self._porter(DirectExchange(cycle, b""))
        finally:
            self._offering = False
        if not turned_away:
            super()._start_asgi_task(cycle, app)

    def _door(self, cycle: RequestResponseCycle) -> Door | None:
        """The door for a request whose body, if it is not there yet, may be waited for."""
        # Who waits for leave to send a body is given it by ASGI's `receive`.
        if self._doors is None or cycle.waiting_for_100_continue or cycle.scope["method"] != "POST":
            return None
        door = self._doors.find(cycle.scope["path"])
        length = None if door is None else _length(cycle.scope)
        if door is None or length is None or length > door.body_bytes_max:
            return None
        if self._admits is not None and not self._admits(cast("Scope", cycle.scope)):
            return None  # the ordinary way says why
        if cycle.more_body:
            if self._doors.held_bytes + length > self._doors.held_bytes_max:
                return None
            self._held_bytes = length
            self._doors.held_bytes += length
        return door

    def _let_go(self) -> None:
        if self._doors is not None:
            self._doors.held_bytes -= self._held_bytes
        self._held, self._held_bytes = None, 0

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._body_bytes += len(body)
        if self._body_bytes > DROPPED_BYTES_MAX and self.cycle.response_complete:
            self.transport.close()
        if (
            self._held is not None
        ):  # uvicorn stops reading until somebody asks, which we do only with all of it
            self.flow.resume_reading()

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()
        if self._held is not None:
            cycle, app, door = self._held
            self._let_go()
            self._offer(cycle, app, door)

    def _offer(self, cycle: RequestResponseCycle, app: Any, door: Door) -> None:
        if self.transport.is_closing():
            return
        if self.flow.write_paused:  # they do not read what they were answered before: the ordinary way waits
            super()._start_asgi_task(cycle, app)
            return
        exchange = DirectExchange(cycle, bytes(cycle.body))
        self._exchange = exchange
        self._offering = True
        try:
            taken = door.take(exchange)
        finally:
            self._offering = False
        if not taken:
            self._exchange = None
            self._show(cycle, app)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_for_stall(None)
        if self._exchange is not None and self._exchange.when_full is not None:
            self._exchange.when_full()

    def _watch_for_stall(self, unsent_before: int | None) -> None:
        self._stall_watch = self.loop.call_later(self.stall_s_max / 2, self._look_for_stall, unsent_before)

    def _look_for_stall(self, unsent_before: int | None) -> None:
        """Cut off a client that took nothing since the last look: it holds what others could use."""
        unsent = self.transport.get_write_buffer_size()
        if unsent_before is not None and unsent >= unsent_before:
            self.transport.abort()
        else:
            self._watch_for_stall(unsent)

    def _end_stall_watch(self) -> None:
        if self._stall_watch is not None:
            self._stall_watch.cancel()
            self._stall_watch = None

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_stall_watch()
        if self._exchange is not None and self._exchange.when_ready is not None:
            self._exchange.when_ready()

    def shutdown(self) -> None:
        super().shutdown()
        # Under TLS a connection that is idle would wait for its client to say goodbye as well.
        if self.transport.is_closing() and not self.transport.get_write_buffer_size():
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._tell_gone()
        self._unset_keepalive_if_required()  # uvicorn leaves the timer, and us with it, to a reset connection
        self._end_stall_watch()
        self._let_go()
        exchange, self._exchange = self._exchange, None
        if exchange is not None and exchange.when_gone is not None:
            exchange.when_gone()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # uvicorn's too
        super().connection_made(transport)
        if len(self.connections) > self._bounds.connections_max:
            self._refuse(Unavailable(f"{self._bounds.connections_max} connections are open; no more may be"))

    def _tell_gone(self) -> None:
        """Tell the request that is being answered; uvicorn tells the last one, which may wait behind it."""
        if self._under_way is not None and not self._under_way.response_complete:
            self._under_way.disconnected = True
            self._under_way.message_event.set()

    def data_received(self, data: bytes) -> None:
        self._is_mixed = self._in_body
        # A head that ends in a large read may be large, or come after others in it: then it is measured.
        self._large_read = len(data) > HEAD_BYTES_MAX or (self._large_read and self._in_head)
        super().data_received(data)
        if self._in_head and not self._is_mixed:  # all of this was head
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
                self._refuse(_head_too_large())

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)[ARRIVED] = time.perf_counter()

    def on_headers_complete(self) -> None:
        self._in_head, self._is_mixed = False, True
        self._fault = self._fault_of_head()
        if self._fault is not None:
            raise ValueError(self._fault.message)  # which makes the parser give up
        self._in_body, self._body_bytes = True, 0
        super().on_headers_complete()
        if self.parser.should_upgrade():  # we do not; and the parser reads nothing more from here on
            self.cycle.keep_alive = False

    def _unsupported_upgrade_warning(self) -> None:
        return  # who asks for another protocol is answered in this one, as they may expect

    def _fault_of_head(self) -> InvalidRequest | None:
        """What the parser lets pass, and others on the way may have read in another way."""
        if len(self.headers) > HEADERS_MAX:
            return InvalidRequest(
                f"the request has {len(self.headers)} headers; at most {HEADERS_MAX} are accepted",
                code="too_many_headers",
            )
        if self._large_read and self._head_size() > HEAD_BYTES_MAX:
            return _head_too_large()
        hosts = codings = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding":
                codings += 1 if value.lower() == b"chunked" else 2
        if codings > 1:
            return InvalidRequest("chunked is the one transfer-encoding, said once", code="invalid_http")
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            return InvalidRequest("a request names one host", code="invalid_http")
        return None

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def look(self, now: float) -> None:
        """Called now and then: close the connection of who takes too long to say what they want."""
        stage = self._stage()
        if not self._patience.is_over(stage, self.scope, self._body_bytes, now, self._bounds):
            return
        if stage == "body" or self._in_head:
            self._refuse(RequestTimeout(f"the {stage} of the request took too long to come"))
        else:
            self.transport.close()

    def _stage(self) -> Stage | None:
        """What the client is waited for with, if it is: who is being answered takes no time of ours."""
        if self._in_body:
            return None if self.flow.read_paused or self.cycle.waiting_for_100_continue else "body"
        if self._is_unanswered():
            return None
        # Between two messages uvicorn's own timer runs, unless something came that began none.
        return "head" if self._in_head or self.timeout_keep_alive_task is None else None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words say no more than ours
        self._refuse(self._fault or InvalidRequest("this is not a request in HTTP/1.1", code="invalid_http"))

    def _refuse(self, error: PlatformError) -> None:
        """Say what is wrong, unless that would be taken for a part of another answer, and close."""
        if self._is_answering():
            self.transport.close()
            return
        request_id = ids.uuid7()
        body = error.envelope(request_id).model_dump_json().encode()
        head = (
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            b"x-request-id: %b" % request_id.encode(),
            *((b"retry-after: %d" % error.retry_after_s,) if error.retry_after_s is not None else ()),
            b"connection: close",
        )
        standing = _standing.lines(self.server_state.default_headers)
        self.transport.write(STATUS_LINE[error.status] + standing + b"\r\n".join(head) + b"\r\n\r\n" + body)
        self.transport.close()

    def _is_answering(self) -> bool:
        """Whether bytes of ours would not be read as the answer to what is coming in."""
        if not self._is_unanswered():
            return False
        return self.cycle.response_started or not self._in_body or bool(self.pipeline)

    def _is_unanswered(self) -> bool:
        """Whether there was a request whose answer is not out as a whole."""
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn declares it as if there always were one
        return cycle is not None and not cycle.response_complete


def _head_too_large() -> InvalidRequest:
    return InvalidRequest(
        f"the head of the request is larger than {HEAD_BYTES_MAX} bytes", code="head_too_large"
    )
