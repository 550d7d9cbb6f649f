"""The short way of the passages by POST: the same checks as on the long one, without a task for each request.

A request with a small body is passed on as it is, over a connection that is there. A small answer goes back
in one write, any other as it arrives, and no faster than its client takes it. Whoever would be refused takes
the long way, which says why; so does a verdict that distill wants to know of.
"""

import time
from typing import Final

import structlog

from gateway.backends import Call, Headers
from gateway.engine import Doorkeeper, Fleet, Limiter, Transit
from gateway.routes.passages import (
    CLIENT_GONE_STATUS,
    EMBEDDINGS,
    PASSAGES,
    Passage,
    allowed,
    authorization_of,
    check_content,
    concerns_run,
    meter_for,
    outgoing_of,
    refusal,
    relayed,
    transit_of,
)
from services.context import RequestContext
from services.errors import PlatformError
from services.middleware import Frame, arrived_s
from services.protocol import DirectExchange

log = structlog.get_logger(__name__)

BODY_BYTES_MAX: Final = 1024 * 1024
"""Larger requests take the long way, which reads no more than there is use for."""

GATHERED_BYTES_MAX: Final = 64 * 1024
"""Answers up to this size are gathered and leave in one write."""


class RelayDoor:
    """Takes the requests of one passage; keys, limits and the frame are those of the long way."""

    def __init__(self, frame: Frame, passage: Passage, *, body_bytes_max: int) -> None:
        self.path = passage.path  # by which metrics and logs know it as well: it serves as `route`
        self.body_bytes_max = min(body_bytes_max, BODY_BYTES_MAX)
        self._frame = frame
        self._passage = passage

    def take(self, exchange: DirectExchange) -> bool:
        """Whether the request is answered here."""
        scope, passage = exchange.scope, self._passage
        if self._frame.drain.draining or concerns_run(passage, exchange.body):
            return False
        doorkeeper: Doorkeeper = scope["state"]["doorkeeper"]
        fleet: Fleet = scope["state"]["fleets"][passage.daemon]
        try:
            principal, limiter = allowed(passage, doorkeeper, authorization_of(scope["headers"]))
            check_content(passage, principal, exchange.body)
            if limiter is not None:
                limiter.admit()
        except PlatformError:
            return False
        request = self._frame.begin(scope)
        request.principal, request.roles = principal.name, principal.roles
        scope["route"] = self
        transit = transit_of(passage, scope)
        visit = _Visit(self._frame, exchange, request, limiter, transit)
        outgoing = outgoing_of(
            passage, scope, exchange.body, request, principal, limiter=limiter, sent=transit.sent
        )
        visit.call = fleet.start(outgoing, visit)
        exchange.when_full, exchange.when_ready = visit.call.pause, visit.call.resume
        return True


def relay_doors(frame: Frame, *, body_bytes_max: int) -> list[RelayDoor]:
    """A door for each passage by POST but for embeddings, which have one of their own."""
    return [
        RelayDoor(frame, passage, body_bytes_max=body_bytes_max)
        for passage in PASSAGES
        if passage.method == "POST" and passage.path != EMBEDDINGS
    ]


class _Visit:
    """One request on its way through a door, and the `Listener` that passes on what the daemon answers."""

    __slots__ = (
        "_exchange",
        "_frame",
        "_gathered",
        "_headers",
        "_limiter",
        "_meter",
        "_request",
        "_started",
        "_status",
        "_transit",
        "call",
    )

    def __init__(
        self,
        frame: Frame,
        exchange: DirectExchange,
        request: RequestContext,
        limiter: Limiter | None,
        transit: Transit,
    ) -> None:
        self._frame = frame
        self._exchange = exchange
        self._request = request
        self._limiter = limiter
        self._meter = meter_for(limiter)
        self._transit = transit
        self._started = arrived_s(exchange.scope)
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._gathered: list[bytes] | None = None
        self.call: Call | None = None
        exchange.when_gone = self._leave

    def head(self, status: int, headers: Headers) -> None:
        if self._meter is not None:
            self._meter.head(headers)
        length = None
        passed = []
        for header in relayed(headers, self._limiter):
            if header[0] == b"content-length":
                length = int(header[1])
            else:
                passed.append(header)
        passed.append((b"x-request-id", self._request.request_id.encode()))
        self._status = status
        if length is not None and length <= GATHERED_BYTES_MAX:
            self._headers, self._gathered = passed, []
        else:
            self._exchange.start(status, passed, length)

    def data(self, data: bytes) -> None:
        if self._meter is not None:
            self._meter.feed(data)
        if self._gathered is not None:
            self._gathered.append(data)
        else:
            self._exchange.send(data)

    def done(self, error: PlatformError | None) -> None:
        self._transit.answered()
        if error is None and self._gathered is not None:
            self._exchange.respond(self._status, self._headers, b"".join(self._gathered))
        elif error is None:
            self._exchange.finish()
        elif self._status and self._gathered is None:
            self._log(error)
            self._exchange.cut()
        else:
            self._refuse(error)
        if error is None:
            self._transit.over()
        self._end(self._status)

    def _refuse(self, error: PlatformError) -> None:
        """Nothing went out yet: say what is wrong."""
        request_id = self._request.request_id
        self._status = error.status
        if error.status >= 500:
            self._log(error)
        headers, body = refusal(self._exchange.scope["path"], error, request_id)
        self._exchange.respond(error.status, headers, body)

    def _log(self, error: PlatformError) -> None:
        log.warning(
            "request failed",
            code=error.code,
            reason=error.summary,
            request_id=self._request.request_id,
            trace_id=self._request.traceparent[3:35],
        )

    def _leave(self) -> None:
        """The caller is gone: so is the reason to work for them."""
        if self.call is not None:
            self.call.cancel()
        self._end(CLIENT_GONE_STATUS if self._gathered is not None else self._status)

    def _end(self, status: int) -> None:
        self.call = None
        if self._meter is not None and self._limiter is not None:
            self._limiter.charge(self._meter.tokens)
        self._frame.end(self._exchange.scope, self._request, status, time.perf_counter() - self._started)
