"""What happens around every request, as pure ASGI: ids, log, metrics, limits, drain, a net for crashes."""

import time
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services import context, ids
from services.drain import Drain
from services.errors import Draining, InvalidRequest, PlatformError, TooLarge
from services.telemetry import HttpMetrics

log = structlog.get_logger("http")

Headers = list[tuple[bytes, bytes]]

OPS_PATHS = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json"})
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def route_template(scope: Scope) -> str:
    """The template of the route that matched, such as `/v1/runs/{run_id}`: few values, safe as a label."""
    return getattr(scope.get("route"), "path", None) or "unmatched"


def error_headers(error: PlatformError) -> dict[str, str]:
    if error.retry_after_s is None:
        return {}
    return {"retry-after": str(max(1, round(error.retry_after_s)))}


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


class RequestMiddleware:
    """Gives every request its ids, its line in the log and its place in the metrics.

    `trusted` says whether the caller is one of our own daemons, whose word on principal and roles counts.
    The gateway, which faces the world, sets it to False.
    """

    def __init__(self, app: ASGIApp, *, metrics: HttpMetrics, drain: Drain, trusted: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._drain = drain
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = self._identify(scope)
        context.enter(request)
        id_header = (b"x-request-id", request.request_id.encode())
        status = 0

        async def send_identified(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), id_header]}
            await send(message)

        ops = scope["path"] in OPS_PATHS
        started = time.perf_counter()
        if not ops:
            self._drain.in_flight += 1
            self._metrics.in_flight.inc()
        try:
            if self._drain.draining and not ops:
                error = Draining("shutting down; retry, another replica or the next start will serve")
                await send_error(send_identified, error, request.request_id, (b"connection", b"close"))
            else:
                await self._app(scope, receive, send_identified)
        except Exception:
            log.exception("unexpected failure", route=route_template(scope))
            if status:
                raise  # half an answer went out: cutting the connection is the only honest end
            await send_error(send_identified, PlatformError("unexpected failure"), request.request_id)
        finally:
            if not ops:
                self._drain.in_flight -= 1
                self._metrics.in_flight.dec()
                self._record(scope, status, time.perf_counter() - started)

    def _identify(self, scope: Scope) -> context.RequestContext:
        offered_id = traceparent = principal = roles = None
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                offered_id = value.decode("latin-1")
            elif name == b"traceparent":
                traceparent = value.decode("latin-1")
            elif name == b"x-stillhouse-principal":
                principal = value.decode("latin-1")
            elif name == b"x-stillhouse-roles":
                roles = value.decode("latin-1")
        request = context.RequestContext(ids.request_id(offered_id), ids.child_traceparent(traceparent))
        if self._trusted:
            request.principal = principal
            if roles is not None:
                request.roles = tuple(role for role in roles.split(",") if role)
        return request

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = route_template(scope)
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.observe(route, method, status or 499, seconds)  # 499: the client was gone first
        log.info(
            "request",
            route=route,
            method=method,
            status=status or 499,
            duration_ms=round(seconds * 1000, 2),
        )


class BodyLimitMiddleware:
    """Refuses bodies over the limit: at once when the length is declared, at the limit when it is not."""

    def __init__(self, app: ASGIApp, *, bytes_max: int) -> None:
        self._app = app
        self._bytes_max = bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if (error := self._declared_too_large(scope["headers"])) is not None:
            request = context.current()
            close = (b"connection", b"close")  # the rest of the body is not read
            await send_error(send, error, request.request_id if request else "", close)
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

    def _declared_too_large(self, headers: Any) -> PlatformError | None:
        for name, value in headers:
            if name == b"content-length":
                if not value.isdigit():
                    return InvalidRequest("content-length is not a number")
                if int(value) > self._bytes_max:
                    return self._too_large(value.decode())
        return None

    def _too_large(self, size: str) -> TooLarge:
        return TooLarge(f"the body has {size} bytes; at most {self._bytes_max} are accepted")
