"""uvicorn's protocol within bounds: what is no HTTP gets the envelope, and no wait is without end."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, ClassVar, Final, cast

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from services import ids
from services.bounds import Bounds, Patience, Stage
from services.errors import InvalidRequest, PlatformError, RequestTimeout, Unavailable
from services.protocol.arrival import Delay
from services.protocol.exchange import Headers, standing
from services.protocol.leaving import is_waiting, say_goodbye

ARRIVED: Final = "stillhouse.arrived_s"
"""Where the scope of a request says since when it was there to be read, by `time.perf_counter`."""

HEAD_BYTES_MAX: Final = 64 * 1024
"""Request line and headers together."""

HEADERS_MAX: Final = 256
"""Lines of a head: everybody who looks for one of them looks at all."""

VERSIONS: Final = frozenset({"1.0", "1.1"})

FRAMING_SHARE_MAX: Final = 8
"""So many bytes around each one of a body: the smallest chunk has five, and more are no help to anybody."""

DROPPED_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of a body that comes although its request was answered, so that its sender gets to read the answer."""


FED_BYTES_MAX: Final = 4096
FED_BODY_BYTES_MAX: Final = 64 * 1024
"""What the parser is given at once: a read may hold thousands of requests, and each takes memory."""

UNREAD_BYTES_MAX: Final = 16 * 1024
"""Of what waits for the parser: beyond it nothing is read. Below it is, to notice when the client leaves."""

READ_FIRST_S: Final = 0.1
"""What came to a connection that is about to be closed is read within that, and turned away."""

EMPTY_BYTES_MAX: Final = 64
"""Of empty lines in one read, where a request may begin: one line is usual, after the body of the last."""


class _Flow(FlowControl):
    """Reads on for nobody while there is enough that was read and waits."""

    def __init__(self, transport: asyncio.Transport, has_enough: Callable[[], bool]) -> None:
        super().__init__(transport)
        self._has_enough = has_enough

    def resume_reading(self) -> None:
        if not self._has_enough():
            super().resume_reading()


class GuardedProtocol(HttpToolsProtocol):
    """By itself uvicorn's answers in plain text, and waits without end for heads without end."""

    stall_s_max: ClassVar = 120.0
    """Seconds for which a client may take nothing of what was written for it."""

    _delay: ClassVar = Delay()
    """Of all connections: they have one event loop."""

    _in_head = False
    _head_bytes = 0
    _large_read = False
    _is_mixed = False
    _in_body = False
    _body_bytes = 0
    _coded_bytes = 0
    _unread = b""
    _is_held = False
    _is_leaving = False
    _fault: InvalidRequest | None = None
    _idle_since: float | None = None

    def __init__(self, *args: Any, bounds: Bounds | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._bounds = bounds or Bounds()
        self._patience = Patience()
        self._stall_watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # uvicorn's too
        super().connection_made(transport)
        self.flow = _Flow(transport, self._has_enough)
        if len(self.connections) > self._bounds.connections_max:
            self._refuse(Unavailable(f"{self._bounds.connections_max} connections are open; no more may be"))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unread = b""
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()  # uvicorn leaves it, and us with it, to a reset connection
        self._end_stall_watch()

    def shutdown(self) -> None:
        if not self._is_unanswered():
            is_new = not self._has_asked() and not self._is_leaving  # who just connected is about to ask
            if is_new or is_waiting(self.transport):
                self._is_leaving = True
                self.loop.call_later(READ_FIRST_S, self.shutdown)  # to close upon a request would reset it
                return
            if self.scheme == "http" and not self.transport.get_write_buffer_size():
                say_goodbye(self.transport)
        super().shutdown()
        # Under TLS a connection that is idle would wait for its client to say goodbye as well.
        if self.transport.is_closing() and not self.transport.get_write_buffer_size():
            self.transport.abort()

    # --- between requests -------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """As uvicorn's, but for two things.

        It goes on with what the parser was not given yet, and one timer serves many requests.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        following = self.pipeline.pop() if self.pipeline else None
        if self._is_held and not self.pipeline:
            self._is_held = False
            self.loop.call_soon(self._feed_rest)
        self.flow.resume_reading()
        if following is not None:
            self._start_asgi_task(*following)
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._end_idleness_in(self.timeout_keep_alive)

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None  # something came

    def _end_idleness_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if self._idle_since is None:  # the end of the next answer sets the timer again
            return
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._end_idleness_in(left_s)
        else:
            super().timeout_keep_alive_handler()

    # --- what comes in ----------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._unread or self.pipeline or len(data) > FED_BYTES_MAX:
            self._unread += data
            self._feed_on()
        else:
            self._feed(data, large=False)

    def _has_enough(self) -> bool:
        return len(self._unread) >= UNREAD_BYTES_MAX

    def _feed_on(self) -> None:
        """Go on with what was read, until a request waits behind the one that is being answered."""
        while self._unread and not self.pipeline and not self.transport.is_closing():
            size = FED_BODY_BYTES_MAX if self._in_body else FED_BYTES_MAX
            piece, self._unread = self._unread[:size], self._unread[size:]
            self._feed(piece, large=True)
        self._is_held = bool(self._unread)
        if self._has_enough():
            self.flow.pause_reading()

    def _feed_rest(self) -> None:
        self._feed_on()
        self.flow.resume_reading()

    def _feed(self, data: bytes, *, large: bool) -> None:
        before, was_in_head, was_in_body = self.scope, self._in_head, self._in_body
        self._is_mixed = was_in_body
        # A head that ends in a large read may be large, or come after others in it: then it is measured.
        self._large_read = large or (self._large_read and was_in_head)
        super().data_received(data)
        if self._in_head and not self._is_mixed:  # all of this was head
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
                self._refuse(_head_too_large())
        elif self.scope is before and not was_in_head:  # no message began in this
            if was_in_body and self._in_body:
                self._look_at_framing(len(data))
            elif not was_in_body and len(data) > EMPTY_BYTES_MAX and not self._is_unanswered():
                self.transport.close()

    def _look_at_framing(self, read: int) -> None:
        """Cut off who sends chunks or trailers of which hardly anything is body: those have no length."""
        self._coded_bytes += read
        allowed = HEAD_BYTES_MAX + FRAMING_SHARE_MAX * self._body_bytes
        if self._coded_bytes - self._body_bytes > allowed and not self.transport.is_closing():
            self._refuse(InvalidRequest("the chunks hold far more than the body", code="invalid_http"))

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)[ARRIVED] = self._arrived_s()

    def _arrived_s(self) -> float:
        return time.perf_counter() - self._delay.before(self.transport, self.loop.time())

    def on_headers_complete(self) -> None:
        self._in_head, self._is_mixed = False, True
        self._fault = self._fault_of_head()
        if self._fault is not None:
            raise ValueError(self._fault.message)  # which makes the parser give up
        self._in_body, self._body_bytes, self._coded_bytes = True, 0, 0
        super().on_headers_complete()
        self.headers = []  # where trailers go: what comes after a body is none of its request's headers
        if self.parser.should_upgrade():  # we do not; and the parser reads nothing more from here on
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._body_bytes += len(body)
        if self._body_bytes > DROPPED_BYTES_MAX and self.cycle.response_complete:
            self.transport.close()

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        return  # who asks for another protocol is answered in this one, as they may expect

    def _fault_of_head(self) -> InvalidRequest | None:
        """What the parser lets pass, and others on the way may have read in another way."""
        if len(self.headers) > HEADERS_MAX:
            return InvalidRequest(
                f"the request has {len(self.headers)} headers; at most {HEADERS_MAX} are accepted",
                code="too_many_headers",
            )
        if self._large_read and _head_size(self.url, self.headers) > HEAD_BYTES_MAX:
            return _head_too_large()
        hosts = codings = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding":
                codings += 1 if value.lower() == b"chunked" else 2
        if codings > 1:
            return InvalidRequest("chunked is the one transfer-encoding, said once", code="invalid_http")
        if hosts > 1:
            return _host_unclear()
        return None if hosts and not codings else self._fault_of_version(hosts, codings)

    def _fault_of_version(self, hosts: int, codings: int) -> InvalidRequest | None:
        version = self.parser.get_http_version()
        if version not in VERSIONS or (codings and version == "1.0"):  # which has no chunks
            return InvalidRequest("this is not a request in HTTP/1.1", code="invalid_http")
        return None if hosts or version == "1.0" else _host_unclear()

    # --- who is waited for ------------------------------------------------------------------

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
        # Between two messages the timer runs, unless something came that began none.
        return "head" if self._in_head or self._idle_since is None else None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_for_stall(None)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_stall_watch()

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

    # --- what is refused --------------------------------------------------------------------

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
        lines = standing.lines(self.server_state.default_headers)
        self.transport.write(STATUS_LINE[error.status] + lines + b"\r\n".join(head) + b"\r\n\r\n" + body)
        self.transport.close()

    def _is_answering(self) -> bool:
        """Whether bytes of ours would not be read as the answer to what is coming in."""
        if not self._is_unanswered():
            return False
        return self.cycle.response_started or not self._in_body or bool(self.pipeline)

    def _has_asked(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None

    def _is_unanswered(self) -> bool:
        """Whether there was a request whose answer is not out as a whole."""
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn declares it as if there always were one
        return cycle is not None and not cycle.response_complete


def _head_size(url: bytes, headers: Headers) -> int:
    return len(url) + sum(len(name) + len(value) for name, value in headers)


def _host_unclear() -> InvalidRequest:
    return InvalidRequest("a request names one host", code="invalid_http")


def _head_too_large() -> InvalidRequest:
    return InvalidRequest(
        f"the head of the request is larger than {HEAD_BYTES_MAX} bytes", code="head_too_large"
    )
