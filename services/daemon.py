"""Builds and serves a daemon: the frame of routes, errors, health, metrics and drain around its engine."""

import asyncio
import gc
import json
import os
import re
import select
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, TypeVar, cast

import orjson
import structlog
import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.routing import APIRoute, iter_route_contexts
from prometheus_client import disable_created_metrics
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from schemas.errors import ErrorEnvelope
from services import context
from services.bounds import Bounds, connections_that_fit
from services.drain import Drain
from services.errors import InvalidRequest, MethodNotAllowed, NotFound, PlatformError, UnknownField
from services.faults import param_of, reason_of
from services.health import Check, ReadyState, readiness
from services.middleware import (
    CLIENT_GONE,
    DRAINING,
    OPS_PATHS,
    UNEXPECTED,
    BodyLimitMiddleware,
    Frame,
    HeadMiddleware,
    RequestMiddleware,
    error_headers,
)
from services.pages import PageGuard, PageMiddleware
from services.protocol import Direct, Doors, EnvelopeProtocol, Porter
from services.settings import DaemonSettings, is_loopback
from services.tasks import task_set
from services.telemetry import AccessLog, CollectorRegistry, HttpMetrics, configure_logging, render
from services.tracing import Tracer, open_tracer

log = structlog.get_logger(__name__)

Lifespan = Callable[["Daemon"], AbstractAsyncContextManager[Mapping[str, Any]]]
"""Opens what the daemon needs and yields its state, which must have `checks: dict[str, Check]`."""

BACKLOG = 2048
GC_ALLOCATIONS = 20_000  # between two looks for cycles, of which a request makes next to none
TICKS_A_LOOK = (
    5  # between two looks for connections that have been waited for; uvicorn ticks ten times a second
)
SECURITY_HEADERS = (
    ("x-content-type-options", "nosniff"),  # no browser makes a page of what a model said
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
)
TLS_HEADERS = (("strict-transport-security", "max-age=31536000"),)
TLS_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of version 1.2: those of 1.3 are all as good
KEEP_ALIVE_S = 75  # longer than our clients keep idle connections, so that they never race our close


LONG_NUMBER = re.compile(rb"(?<![.\d])\d{19}")
"""Not the digits of a fraction: those hide no integer, and vectors are full of them."""


CONTAINERS_MAX = 1_000_000
"""Lists and objects in one body: each takes some 60 bytes of memory, of which three were sent."""


def parse_json(body: bytes) -> Any:
    """The value of a body. NaN, infinities, bad UTF-8 and deep nesting are refused, as no JSON.

    Raises `orjson.JSONDecodeError`, and `InvalidRequest` for one that holds far more than it weighs, or is
    nested more deeply than can be read here.
    """
    if len(body) > CONTAINERS_MAX and body.count(b"[") + body.count(b"{") > CONTAINERS_MAX:
        raise InvalidRequest(
            f"the body has more than {CONTAINERS_MAX} lists and objects; send it in parts",
            code="too_many_items",
        )
    value = orjson.loads(body)
    if LONG_NUMBER.search(body):  # orjson reads these as floats, which would hide them from our checks
        try:
            return json.loads(body)
        except RecursionError:
            raise InvalidRequest("the body is nested too deeply", code="too_deep") from None
    return value


class StrictRequest(Request):
    """Reads JSON as the contract says."""

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = parse_json(await self.body())
        return self._json


class StrictRoute(APIRoute):
    """A route whose body is parsed by `StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return strict


def router(failure: type[BaseModel] = ErrorEnvelope) -> APIRouter:
    """The router that a daemon's routes hang on. Its OpenAPI says that failures come in the envelope, or in
    another form that the daemon speaks.
    """
    return APIRouter(
        route_class=StrictRoute,
        responses={"default": {"model": failure, "description": "Any failure."}},
    )


class Daemon(FastAPI):
    """A FastAPI application with the kit's parts at hand."""

    def __init__(
        self, name: str, settings: DaemonSettings, lifespan: Lifespan, *, registry: CollectorRegistry
    ) -> None:
        super().__init__(title=name, lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False)
        self.name = name
        self.drain = Drain(settings.drain_timeout_s)
        self.access_log = AccessLog(name, settings.log_level)
        self.registry = registry
        self.direct: Direct | None = None
        self.porter: Porter | None = None
        self.admits: Callable[[Scope], bool] | None = None
        self.tracer: Tracer | None = None
        self._outermost: ASGIApp = super().__call__

    def surround(self, layer: Callable[[ASGIApp], ASGIApp]) -> None:
        """Put a layer around everything there is so far, FastAPI's own layers included."""
        self._outermost = layer(self._outermost)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._outermost(scope, receive, send)


def build(
    name: str,
    routes: APIRouter,
    lifespan: Lifespan,
    settings: DaemonSettings,
    *,
    registry: CollectorRegistry,
    trusted: bool = True,
    is_open: Callable[[], bool] | None = None,
    origins: Sequence[str] = (),
    direct: Callable[[Frame], Direct] | None = None,
    porter: Callable[[Frame], Porter] | None = None,
    tracer: Tracer | None = None,
) -> Daemon:
    """Put the frame around a daemon's routes.

    `direct` makes a handler for one route whose requests are too many for the ordinary way; it is given the
    same frame to keep. `porter` makes what turns away those who may not come in at all.

    `tracer` stands in for the one that the settings ask for, if they do.

    `is_open` says whether anybody who gets here is served now: then pages are kept away but for those of
    `origins`. Unless given, a daemon is open that listens on this machine alone and shares no secret.

    `trusted` is False for a daemon that faces others than ours: it believes nobody's identity headers. The
    rest answer only who shows the internal token, where there is one. Raises `InvalidRequest` for an address
    that others can reach and no such token.
    """
    tokens = settings.internal_tokens if trusted else ()
    if trusted and not tokens and not is_loopback(settings.host):
        raise InvalidRequest(
            f"without STILLHOUSE_INTERNAL_TOKEN only this machine may be served, and others can reach "
            f"{settings.host}. Set the same secret for all daemons, or listen on 127.0.0.1",
            code="no_internal_token",
        )
    metrics = HttpMetrics(registry, lambda: app.drain.in_flight)
    app = Daemon(name, settings, _watched(lifespan, metrics), registry=registry)
    app.tracer = open_tracer(name, settings, registry) if tracer is None else tracer
    app.include_router(_operations(app))
    app.include_router(routes)
    for kind in (PlatformError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _to_envelope)
    app.add_exception_handler(ClientDisconnect, _to_nobody)
    frame = Frame(
        metrics=metrics,
        access_log=app.access_log,
        drain=app.drain,
        trusted=trusted,
        internal_tokens=tuple(token.encode() for token in tokens),
        tracer=app.tracer,
    )
    app.surround(HeadMiddleware)
    app.surround(partial(BodyLimitMiddleware, bytes_max=settings.body_bytes_max))
    guard = PageGuard(is_open or (lambda: not tokens and is_loopback(settings.host)), origins)
    app.surround(partial(PageMiddleware, guard=guard, open_paths=OPS_PATHS))
    app.surround(partial(RequestMiddleware, frame=frame))
    app.direct = direct(frame) if direct is not None else None
    app.porter = porter(frame) if porter is not None else None
    app.admits = frame.admits if tokens else guard.admits
    return app


def _watched(lifespan: Lifespan, metrics: HttpMetrics) -> Lifespan:
    """The lifespan, with what every daemon does besides: watch its event loop, and send its last spans."""

    @asynccontextmanager
    async def watched(app: Daemon) -> AsyncIterator[Mapping[str, Any]]:
        async with task_set() as tasks:
            tasks.start(metrics.watch_loop(), name="watch the event loop")
            try:
                async with lifespan(app) as state:
                    yield state
            finally:
                if app.tracer is not None:
                    await asyncio.to_thread(app.tracer.close)

    return watched


def _operations(app: Daemon) -> APIRouter:
    operations = APIRouter(tags=["operations"])

    @operations.get("/healthz")
    async def healthz(response: Response) -> dict[str, str]:
        """Whether the process serves."""
        if app.drain.draining:
            response.headers[DRAINING[0].decode()] = DRAINING[1].decode()
        return {"status": "ok"}

    @operations.get("/readyz", responses={503: {"model": ReadyState}})
    async def readyz(request: Request) -> Response:
        """Whether everything needed is there, with a reason for each thing that is not."""
        checks: dict[str, Check] = request.state.checks
        state = await readiness(checks)
        if app.drain.draining:
            state = state.model_copy(update={"status": "unavailable"})
        status = 503 if state.status == "unavailable" else 200
        return Response(state.model_dump_json(exclude_none=True), status, media_type="application/json")

    @operations.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus text."""
        return Response(render(app.registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    return operations


# --- errors -----------------------------------------------------------------------------------


def from_validation(error: RequestValidationError | ValidationError) -> InvalidRequest:
    """Say what is wrong with the first bad field, and how many more there are. Values are not echoed."""
    errors = error.errors()
    first = errors[0]
    kind, param, reason = first["type"], param_of(_inside(first["loc"])), reason_of(first)
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    if kind == "json_invalid":
        return InvalidRequest(f"the body is not valid JSON: {first['ctx']['error']}", code="invalid_json")
    if any(fault["type"] == "recursion_depth_exceeded" for fault in errors):
        return InvalidRequest(f"`{param}` is nested too deeply", param=param, code="too_deep")
    if kind == "extra_forbidden":
        return UnknownField(f"`{param}` is not a field of this request{more}", param=param)
    if param:
        return InvalidRequest(f"`{param}`: {reason}{more}", param=param)
    if kind == "value_error":  # a rule on several fields together
        return InvalidRequest(f"{reason}{more}")
    why = "it is empty" if kind == "missing" else reason
    return InvalidRequest(f"the body is not a JSON object, sent as application/json: {why}")


def _inside(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    return location[1:] if location and location[0] in ("body", "query", "path", "header") else location


def _from_http(request: Request, error: HTTPException) -> PlatformError:
    if isinstance(error.__cause__, PlatformError):  # raised while FastAPI was reading the body
        return error.__cause__
    where = f"{request.method} {request.url.path}"
    if error.status_code == 404:
        return NotFound(f"there is no route {where}", code="unknown_route")
    if error.status_code == 405:
        return MethodNotAllowed(f"{where} is not allowed; the path has {_methods_of(request)}")
    if error.status_code == 400 and isinstance(error.__cause__, UnicodeDecodeError | ValueError):
        return InvalidRequest("the body is not valid JSON", code="invalid_json")
    return (
        InvalidRequest(str(error.detail)) if error.status_code < 500 else PlatformError("unexpected failure")
    )


def _methods_of(request: Request) -> str:
    """All methods of a path. The framework knows those of the first route alone that has it."""
    methods = {
        method
        for route in iter_route_contexts(request.app.routes)
        if route.path_regex.match(request.scope["path"])
        for method in route.methods or ()
    }
    return ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))


async def _to_envelope(request: Request, error: Exception) -> Response:
    headers: dict[str, str] = {}
    if isinstance(error, RequestValidationError):
        failure: PlatformError = from_validation(error)
    elif isinstance(error, HTTPException):
        failure = _from_http(request, error)
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        if failure.status == MethodNotAllowed.status:
            headers["allow"] = _methods_of(request)
    elif isinstance(error, PlatformError):
        failure = error
    else:  # told in full by RequestMiddleware, which sees it next
        failure = PlatformError(UNEXPECTED)
    if failure.status >= 500:
        log.warning("request failed", code=failure.code, reason=failure.summary)
    current = context.current()
    envelope = failure.envelope(current.request_id if current else None)
    return JSONResponse(envelope.model_dump(), failure.status, headers={**headers, **error_headers(failure)})


async def _to_nobody(_: Request, __: Exception) -> Response:
    """They left before all of their body was there."""
    return Response(status_code=CLIENT_GONE)


# --- serving ----------------------------------------------------------------------------------


LAST_TURN_S = 0.005
LAST_TURNS_MAX = 20
"""Of connections that are still taken in at the end; there is none of a flood."""


class DrainingServer(uvicorn.Server):
    """A server that, on SIGTERM or SIGINT, answers what it has and turns the rest away, then stops."""

    def __init__(self, config: uvicorn.Config, drain: Drain, lifeline_fd: int | None) -> None:
        super().__init__(config)
        self._drain = drain
        self._lifeline_fd = lifeline_fd

    def handle_exit(self, sig: int, frame: Any) -> None:
        if self._drain.draining:  # a second signal means now
            super().handle_exit(sig, frame)
        self._drain.begin()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        # What start-up made stays for good; to look it over takes the collector some 50 ms each time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_ALLOCATIONS, 10, 50)
        if self._lifeline_fd is not None:
            asyncio.get_running_loop().add_reader(self._lifeline_fd, self._lifeline_closed)

    def _lifeline_closed(self) -> None:
        assert self._lifeline_fd is not None
        asyncio.get_running_loop().remove_reader(self._lifeline_fd)
        os.close(self._lifeline_fd)
        self._drain.begin()
        try:
            log.warning("the supervisor is gone; stopping")
        except OSError:  # it held the other end of our output too: from here on nobody listens
            _silence_output()

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS_A_LOOK == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                cast("EnvelopeProtocol", connection).look(now)
        if self._drain.finished:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """First take those in who connected already: to stop listening would reset their connections."""
        for _ in range(LAST_TURNS_MAX):
            listening = [each for server in self.servers for each in server.sockets]
            if not select.select(listening, [], [], 0)[0]:
                break
            await asyncio.sleep(LAST_TURN_S)
        await super().shutdown(sockets)


def _silence_output() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)
    os.close(null)


AnySettings = TypeVar("AnySettings", bound=DaemonSettings)


def run(name: str, settings_type: type[AnySettings], create_app: Callable[[AnySettings], Daemon]) -> None:
    """The whole of a daemon's `__main__`: read the settings, build the app, serve until told to stop.

    Exits with status 2 when a setting is wrong, and with another than 0 when the daemon cannot start.
    """
    configure_logging(name, "info")
    try:
        settings = settings_type()
    except ValidationError as error:
        for fault in error.errors():
            variable = settings_type.variable(str(fault["loc"][0])) if fault["loc"] else "several together"
            log.error("wrong setting", setting=variable, reason=fault["msg"])  # noqa: TRY400 - said in full
        raise SystemExit(2) from None
    configure_logging(name, settings.log_level)
    try:
        app = create_app(settings)
    except PlatformError as error:
        log.error("cannot start", code=error.code, reason=error.message)  # noqa: TRY400 - said in full
        raise SystemExit(1) from None
    serve(app, settings)


def _protocol(app: Daemon, settings: DaemonSettings) -> partial[EnvelopeProtocol]:
    fitting = connections_that_fit(settings.connections_max)
    if fitting < settings.connections_max:
        log.warning("fewer connections than set fit the limit of open files", connections_max=fitting)
    bounds = Bounds(settings.head_timeout_s, settings.body_timeout_s, fitting)
    # One object for all connections: what is held for doors is bounded over all of them.
    doors = app.direct if isinstance(app.direct, Doors | None) else Doors([app.direct])
    return partial(EnvelopeProtocol, direct=doors, porter=app.porter, admits=app.admits, bounds=bounds)


def serve(app: Daemon, settings: DaemonSettings) -> None:
    """Serve until told to stop. Exits with another status than 0 when the daemon cannot start."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's own omission
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=cast("type[asyncio.Protocol]", _protocol(app, settings)),
        ws="none",
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        ssl_ciphers=TLS_CIPHERS,
        headers=[*SECURITY_HEADERS, *(TLS_HEADERS if settings.tls_certificate is not None else ())],
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # nobody in front of us is believed
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
    )
    server = DrainingServer(config, app.drain, settings.lifeline_fd)
    log.info("starting", host=settings.host, port=settings.port)
    app.access_log.open(sys.stdout.buffer)
    try:
        server.run()
    finally:
        app.access_log.flush()
    if not server.started:
        raise SystemExit(1)
    log.info("stopped")
