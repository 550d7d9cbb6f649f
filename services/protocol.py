"""The server's side of HTTP/1.1: what is no HTTP gets the envelope too, and heads are bounded."""

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol, cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from services import ids
from services.errors import InvalidRequest

HEAD_BYTES_MAX: Final = 64 * 1024
"""Request line and headers together."""


class DirectExchange:
    """One request that is answered without a task and without ASGI. `respond` once, or the client leaves.

    `scope` is the ASGI scope. `when_gone` is called if the client leaves before the answer.
    """

    __slots__ = ("_cycle", "body", "scope", "when_gone")

    def __init__(self, cycle: RequestResponseCycle, body: bytes) -> None:
        self._cycle = cycle
        self.scope = cast("Scope", cycle.scope)
        self.body = body
        self.when_gone: Callable[[], None] | None = None

    def respond(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Answer, in one write."""
        cycle = self._cycle
        self.when_gone = None
        if cycle.disconnected:
            return
        lines = [STATUS_LINE[status]]
        for name, value in cycle.default_headers:
            lines += (name, b": ", value, b"\r\n")
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        lines += (b"content-length: %d\r\n\r\n" % len(body), body)
        cycle.transport.write(b"".join(lines))
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()


class Direct(Protocol):
    """Answers the usual requests of one route without a task for each.

    `take` returns False for what it does not answer, errors included: then the request takes the ordinary
    way, as if nobody had looked at it.
    """

    path: str
    body_bytes_max: int

    def take(self, exchange: DirectExchange) -> bool: ...


class EnvelopeProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which by itself answers in plain text and lets a head grow without end.

    Requests of the `direct` handler's route are held back until their bodies are there, and offered to it.
    """

    _in_head = False
    _head_bytes = 0

    def __init__(self, *args: Any, direct: Direct | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._direct = direct
        self._held: tuple[RequestResponseCycle, Any] | None = None
        self._exchange: DirectExchange | None = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # Who waits for leave to send a body is given it by ASGI's `receive`.
        if self._direct is None or cycle.waiting_for_100_continue or not self._may_be_direct(cycle.scope):
            super()._start_asgi_task(cycle, app)
        elif cycle.more_body:
            self._held = (cycle, app)
        else:  # it was waiting behind another request of the same connection
            self._offer(cycle, app)

    def _may_be_direct(self, scope: Any) -> bool:
        assert self._direct is not None
        if scope["path"] != self._direct.path or scope["method"] != "POST":
            return False
        for name, value in scope["headers"]:
            if name == b"content-length":
                return len(value) < 10 and value.isdigit() and int(value) <= self._direct.body_bytes_max
        return False

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self._held is not None:
            (cycle, app), self._held = self._held, None
            self._offer(cycle, app)

    def _offer(self, cycle: RequestResponseCycle, app: Any) -> None:
        assert self._direct is not None
        exchange = DirectExchange(cycle, bytes(cycle.body))
        self._exchange = exchange
        if not self._direct.take(exchange):
            self._exchange = None
            super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn leaves the timer, and us with it, to a reset connection
        exchange, self._exchange, self._held = self._exchange, None, None
        if exchange is not None and exchange.when_gone is not None:
            exchange.when_gone()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:  # still: all of this was head
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
                self._refuse(
                    f"the head of the request is larger than {HEAD_BYTES_MAX} bytes", "head_too_large"
                )

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words say no more than ours
        self._refuse("this is not a request in HTTP/1.1", "invalid_http")

    def _refuse(self, message: str, code: str) -> None:
        request_id = ids.uuid7()
        body = InvalidRequest(message, code=code).envelope(request_id).model_dump_json()
        head = (
            "HTTP/1.1 400 Bad Request",
            "content-type: application/json",
            f"content-length: {len(body)}",
            f"x-request-id: {request_id}",
            "connection: close",
        )
        self.transport.write(("\r\n".join(head) + "\r\n\r\n" + body).encode("ascii"))
        self.transport.close()
