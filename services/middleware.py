"""What happens around every request, as pure ASGI: ids, log, metrics, limits, drain, a net for crashes."""

import hmac
import math
import time
from typing import Any, Final, NamedTuple

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services import context, ids
from services.drain import Drain
from services.errors import Draining, InvalidRequest, PlatformError, TooLarge, Unauthenticated
from services.protocol import ARRIVED, DROPPED_BYTES_MAX
from services.settings import INTERNAL_HEADER
from services.telemetry import AccessLog, HttpMetrics
from services.tracing import Tracer, parent_of

log = structlog.get_logger("http")

Headers = list[tuple[bytes, bytes]]

UNEXPECTED = "unexpected failure"
"""All that a caller is told of a failure that we did not foresee."""

CLIENT_GONE = 499

DRAINING = (b"x-stillhouse-draining", b"1")
"""With it a daemon says that it did nothing of what was asked, and will not: ask another, or again soon."""

INTERNAL = INTERNAL_HEADER.encode()
OPS_PATHS = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json"})
OTHER_METHOD = "_OTHER"  # OpenTelemetry's word, since anybody may make methods up
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def route_template(scope: Scope) -> str:
    """The template of the route that matched, such as `/v1/runs/{run_id}`: few values, safe as a label."""
    return getattr(scope.get("route"), "path", None) or "unmatched"


def arrived_s(scope: Scope) -> float:
    """When a request began to come in, by `time.perf_counter`. Now, where no server of ours took it."""
    arrived: float = scope.get(ARRIVED) or time.perf_counter()
    return arrived


def error_headers(error: PlatformError) -> dict[str, str]:
    if error.status == 401:
        return {"www-authenticate": "Bearer"}
    if error.retry_after_s is None:
        return {}
    # Rounded up: who comes back earlier is refused again.
    return {"retry-after": str(max(1, math.ceil(error.retry_after_s)))}


async def send_error(send: Send, error: PlatformError, request_id: str, *extra: tuple[bytes, bytes]) -> None:
    """Answer with the envelope, outside of any framework."""
    body = error.envelope(request_id).model_dump_json().encode()
    headers: Headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *((name.encode(), value.encode()) for name, value in error_headers(error).items()),
        *extra,
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Claims(NamedTuple):
    """What a head says of its request, be it believed or not."""

    request_id: str | None
    traceparent: str | None
    principal: str | None
    roles: str | None


CLAIMS: Final = (b"x-request-id", b"traceparent", b"x-stillhouse-principal", b"x-stillhouse-roles")


def claims(scope: Scope) -> Claims:
    said = {name: value.decode("latin-1") for name, value in scope["headers"] if name in CLAIMS}
    return Claims(*map(said.get, CLAIMS))


class Frame:
    """What is done for every request, whichever way it takes: ids before, a log line and metrics after.

    `trusted` says whether the caller is one of our own daemons, whose word on principal and roles counts.
    The gateway, which faces the world, sets it to False. `internal_tokens` are those of which a caller must
    then show one, none for nothing. `tracer` is None where nothing is traced.
    """

    def __init__(
        self,
        *,
        metrics: HttpMetrics,
        access_log: AccessLog,
        drain: Drain,
        trusted: bool,
        internal_tokens: tuple[bytes, ...] = (),
        tracer: Tracer | None = None,
    ) -> None:
        self.drain = drain
        self._internal_tokens = internal_tokens
        self.tracer = tracer
        self._metrics = metrics
        self._access_log = access_log
        self._trusted = trusted

    def admits(self, scope: Scope) -> bool:
        """Whether the caller shows that they are one of our daemons, where they have to."""
        if not self._internal_tokens:
            return True
        for name, value in scope["headers"]:
            if name == INTERNAL:
                return any(hmac.compare_digest(value, token) for token in self._internal_tokens)
        return False

    def begin(self, scope: Scope) -> context.RequestContext:
        """Count a request in, and give it its ids."""
        self.drain.in_flight += 1
        return self.identify(scope)

    def identify(self, scope: Scope) -> context.RequestContext:
        return self.identify_as(claims(scope))

    def identify_as(self, claimed: Claims) -> context.RequestContext:
        """The ids of a request whose head says this of itself."""
        request_id, traceparent, principal, roles = claimed
        request = context.RequestContext(ids.request_id(request_id), self._traceparent(traceparent))
        if self.tracer is not None:
            request.parent_id = parent_of(traceparent)
        if self._trusted:
            request.principal = principal
            if roles is not None:
                request.roles = tuple(role for role in roles.split(",") if role)
        return request

    def _traceparent(self, offered: str | None) -> str:
        if self.tracer is None:
            return ids.child_traceparent(offered)
        return self.tracer.traceparent(offered, trusted=self._trusted)

    def end(self, scope: Scope, request: context.RequestContext, status: int, seconds: float) -> None:
        """Count a request out. Status 0: the client was gone before it had one."""
        self.drain.in_flight -= 1
        route = route_template(scope)
        method = scope["method"] if scope["method"] in METHODS else OTHER_METHOD
        status = status or CLIENT_GONE
        self._metrics.observe(route, method, status, seconds)
        self._access_log.write(request, route, method, status, round(seconds * 1000, 2))
        if self.tracer is not None:
            self.tracer.served(request, route=route, method=method, status=status, seconds=seconds)


class RequestMiddleware:
    """Puts the frame around requests that take the ordinary way, and catches what falls through it."""

    def __init__(self, app: ASGIApp, *, frame: Frame) -> None:
        self._app = app
        self._frame = frame

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] in OPS_PATHS:
            request = self._frame.identify(scope)
            context.enter(request)
            await self._guarded(scope, receive, _Sender(send, request.request_id), request)
            return
        request = self._frame.begin(scope)
        context.enter(request)
        sender = _Sender(send, request.request_id)
        started = arrived_s(scope)
        try:
            await self._guarded(scope, receive, sender, request)
        finally:
            self._frame.end(scope, request, sender.status, time.perf_counter() - started)

    async def _guarded(
        self, scope: Scope, receive: Receive, send: "_Sender", request: context.RequestContext
    ) -> None:
        if self._frame.drain.draining and scope["path"] not in OPS_PATHS:
            error = Draining("shutting down; retry, another replica or the next start will serve")
            if _is_coming(scope["headers"]):
                await _let_go_by(receive)  # to close before it came would reset the connection
            await send_error(send, error, request.request_id, (b"connection", b"close"), DRAINING)
            return
        if scope["path"] not in OPS_PATHS and not self._frame.admits(scope):
            await send_error(send, _stranger(), request.request_id)
            return
        try:
            await self._app(scope, receive, send)
        except PlatformError as error:  # raised by a layer outside of FastAPI
            if send.status:
                raise
            await send_error(send, error, request.request_id)
        except Exception:
            log.exception("unexpected failure", route=route_template(scope))
            if not send.status:
                await send_error(send, PlatformError(UNEXPECTED), request.request_id)
            elif not send.complete:
                raise  # half an answer went out: cutting the connection is the only honest end


def _stranger() -> Unauthenticated:
    return Unauthenticated(
        "this daemon answers the gateway and its peers only, which share STILLHOUSE_INTERNAL_TOKEN",
        code="internal_token",
    )


class _Sender:
    """An ASGI `send` that adds the request's id to the answer, and knows how far the answer is."""

    __slots__ = ("_id_header", "_send", "complete", "status")

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._id_header = (b"x-request-id", request_id.encode())
        self.status = 0
        self.complete = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), self._id_header]
        elif not message.get("more_body"):
            self.complete = True
        await self._send(message)


class SecondIdMiddleware:
    """Says a request's id under a second name on one path: that of the API whose clients ask there."""

    def __init__(self, app: ASGIApp, *, path: str, name: bytes) -> None:
        self._app = app
        self._path = path
        self._name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != self._path:
            await self._app(scope, receive, send)
            return

        async def send_both(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = dict(message["headers"])
                second = {self._name: said[b"x-request-id"]} if self._name not in said else {}
                message = {**message, "headers": [*message["headers"], *second.items()]}
            await send(message)

        await self._app(scope, receive, send_both)


class HeadMiddleware:
    """Answers HEAD where there is a GET: with its status and headers, and no body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        # A copy, since the server goes by the method too, and frames an answer to GET in another way.
        asked = {**scope, "method": "GET"}
        try:
            await self._app(asked, receive, send_head)
        finally:
            scope["route"] = asked.get("route")  # by which metrics and logs know it


class BodyLimitMiddleware:
    """Refuses bodies over the limit: at once when the length is declared, at the limit when it is not.

    And those that are compressed, whose size says nothing of what they would unpack to.
    """

    def __init__(self, app: ASGIApp, *, bytes_max: int) -> None:
        self._app = app
        self._bytes_max = bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if (error := self._declared_wrong(scope["headers"])) is not None:
            request = context.current()
            close = () if _is_coming(scope["headers"]) else ((b"connection", b"close"),)
            await send_error(send, error, request.request_id if request else "", *close)
            return
        received = 0

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._bytes_max:
                raise self._too_large(f"more than {received}")
            return message

        await self._app(scope, receive_bounded, send)

    def _declared_wrong(self, headers: Any) -> PlatformError | None:
        for name, value in headers:
            if name == b"content-encoding" and value.lower() != b"identity":
                return InvalidRequest(
                    "the body is said to be compressed; send it as it is", code="unsupported_encoding"
                )
            if name == b"content-length":
                if not value.isdigit():
                    return InvalidRequest("content-length is not a number")
                if int(value) > self._bytes_max:
                    return self._too_large(value.decode())
        return None

    def _too_large(self, size: str) -> TooLarge:
        return TooLarge(f"the body has {size} bytes; at most {self._bytes_max} are accepted")


async def _let_go_by(receive: Receive) -> None:
    """Take a body without a look at it."""
    while (await receive()).get("more_body", False):
        pass


def _is_coming(headers: Any) -> bool:
    """Whether a body comes whatever we say, and can be let go by.

    Most clients read no answer before they have sent all, and never would if we closed on them.
    """
    length = 0
    for name, value in headers:
        if name == b"expect":
            return False
        if name == b"content-length" and value.isdigit():
            length = int(value)
    return length <= DROPPED_BYTES_MAX
