"""The gateway's table of routes, and the way of a request through it: admit, forward, relay."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final

import orjson
import structlog
from fastapi import Depends, Request, Response
from starlette.types import Receive, Scope, Send

from gateway.backends import Headers, Outgoing, Reply
from gateway.engine import Doorkeeper, Fleet, Limiter, Overhead, Principal, TokenMeter, Transit
from schemas.runs import VerdictRecord
from schemas.verdicts import Verdict
from services import context, daemon
from services.clients import DistillClient
from services.disconnect import ClientGone, unless_gone
from services.errors import Forbidden, PlatformError
from services.keys import Scope as KeyScope
from services.metering import METERED_HEADER
from services.middleware import arrived_s, error_headers

log = structlog.get_logger(__name__)

routes = daemon.router()

CLIENT_GONE_STATUS: Final = 499


@dataclass(frozen=True, slots=True)
class Passage:
    """A route that a daemon serves: who may take it, and whether asking twice does no harm."""

    method: str
    path: str
    daemon: str
    summary: str
    scopes: tuple[KeyScope, ...] = ()
    repeatable: bool = False
    unrestricted: bool = False
    """Closed to keys that are limited to job roles, since it could widen them."""


READ: Final[tuple[KeyScope, ...]] = ("vectors:read",)
WRITE: Final[tuple[KeyScope, ...]] = ("vectors:write",)
EMBEDDINGS: Final = "/v1/embeddings"
ITERATE: Final = "/v1/iterate"
MESSAGES: Final = "/v1/messages"
MESSAGES_ID: Final = b"request-id"
"""What Anthropic's clients call the id of a request."""
VALIDATE: Final = "/v1/validate"
COLLECTION: Final = "/v1/collections/{name}"
SNAPSHOT: Final = f"{COLLECTION}/snapshots/{{snapshot}}"

PASSAGES: Final = (
    Passage("POST", "/v1/chat/completions", "chatd", "Chat, as JSON or as a stream.", ("chat",)),
    Passage("POST", "/v1/responses", "chatd", "Chat in the form of OpenAI's Responses.", ("chat",)),
    Passage("POST", MESSAGES, "chatd", "Chat in the form of Anthropic's Messages.", ("chat",)),
    Passage(
        "POST",
        "/v1/chat/explain",
        "chatd",
        "Which models would be tried, and why.",
        ("chat",),
        repeatable=True,
    ),
    Passage("POST", ITERATE, "chatd", "Generate, validate, repair.", ("chat",)),
    Passage("GET", "/v1/models", "chatd", "Models of all providers.", repeatable=True),
    Passage("GET", "/v1/models/{model:path}", "chatd", "One model.", repeatable=True),
    Passage("POST", EMBEDDINGS, "embedd", "Embed texts.", ("embed",), repeatable=True),
    Passage("GET", "/v1/collections", "vectord", "All collections.", READ, repeatable=True),
    Passage("PUT", COLLECTION, "vectord", "Make a collection.", WRITE, repeatable=True),
    Passage("GET", COLLECTION, "vectord", "One collection.", READ, repeatable=True),
    Passage(
        "DELETE", COLLECTION, "vectord", "Remove a collection.", WRITE, repeatable=True, unrestricted=True
    ),
    Passage("PUT", f"{COLLECTION}/points", "vectord", "Store points.", WRITE, repeatable=True),
    Passage("POST", f"{COLLECTION}/points/get", "vectord", "Read points.", READ, repeatable=True),
    Passage("POST", f"{COLLECTION}/points/delete", "vectord", "Remove points.", WRITE),
    Passage("POST", f"{COLLECTION}/points/scroll", "vectord", "Page through points.", READ, repeatable=True),
    Passage("POST", f"{COLLECTION}/points/count", "vectord", "Count points.", READ, repeatable=True),
    Passage("POST", f"{COLLECTION}/search", "vectord", "Search a collection.", READ, repeatable=True),
    Passage("POST", f"{COLLECTION}/search/batch", "vectord", "Many searches at once.", READ, repeatable=True),
    Passage(
        "POST", f"{COLLECTION}/points/facets", "vectord", "Values and their counts.", READ, repeatable=True
    ),
    Passage("POST", f"{COLLECTION}/points/export", "vectord", "Pages for an export.", READ, repeatable=True),
    Passage("POST", f"{COLLECTION}/benchmark", "vectord", "Measure recall and speed.", WRITE),
    Passage("POST", f"{COLLECTION}/migrate", "vectord", "Move to another engine.", WRITE, unrestricted=True),
    Passage("POST", f"{COLLECTION}/reembed", "vectord", "Embed again by another model.", WRITE),
    Passage("GET", f"{COLLECTION}/reembed", "vectord", "How far that is.", READ, repeatable=True),
    Passage("POST", f"{COLLECTION}/snapshots", "vectord", "Make a snapshot.", WRITE),
    Passage("GET", f"{COLLECTION}/snapshots", "vectord", "All snapshots.", READ, repeatable=True),
    Passage("GET", SNAPSHOT, "vectord", "The file of a snapshot.", READ, repeatable=True),
    Passage("PUT", SNAPSHOT, "vectord", "Bring a snapshot made elsewhere.", WRITE),
    Passage("DELETE", SNAPSHOT, "vectord", "Remove a snapshot.", WRITE),
    Passage("POST", f"{COLLECTION}/restore", "vectord", "Restore a snapshot.", WRITE),
    Passage("POST", "/v1/retrieve", "vectord", "Search many collections.", READ, repeatable=True),
    Passage("GET", "/v1/roles", "vectord", "The role catalogue.", READ, repeatable=True),
    Passage("PUT", "/v1/roles", "vectord", "Replace it.", WRITE, repeatable=True, unrestricted=True),
    Passage("POST", VALIDATE, "validators", "A verdict on an artifact.", ("validate",), repeatable=True),
    Passage(
        "POST", "/v1/validate/batch", "validators", "Verdicts, line by line.", ("validate",), repeatable=True
    ),
    Passage("GET", "/v1/validators", "validators", "Kinds and their codes.", ("validate",), repeatable=True),
    Passage("POST", "/v1/runs", "distill", "Keep run records.", ("observe",), repeatable=True),
    Passage(
        "GET", "/v1/runs/{run_id}", "distill", "A run and its life.", ("observe", "distill"), repeatable=True
    ),
    Passage("POST", "/v1/feedback", "distill", "What somebody said of a run.", ("observe",)),
    Passage("POST", "/v1/distill/jobs", "distill", "Start a stage.", ("distill",)),
    Passage("GET", "/v1/distill/jobs/{job_id}", "distill", "How far it is.", ("distill",), repeatable=True),
    Passage("GET", "/v1/distill/evidence", "distill", "Evidence, searched.", ("distill",), repeatable=True),
    Passage(
        "GET", "/v1/distill/review", "distill", "What waits for a person.", ("distill",), repeatable=True
    ),
    Passage(
        "GET",
        "/v1/distill/review/agreement",
        "distill",
        "How far reviewers agree.",
        ("distill",),
        repeatable=True,
    ),
    Passage(
        "GET",
        "/v1/distill/review/{evidence_id}",
        "distill",
        "One piece, with its decisions.",
        ("distill",),
        repeatable=True,
    ),
    Passage("POST", "/v1/distill/review/{evidence_id}", "distill", "A person's decision.", ("distill",)),
    Passage("GET", "/v1/distill/replays", "distill", "Finished replays.", ("distill",), repeatable=True),
    Passage(
        "GET",
        "/v1/distill/replays/{replay_id}/files/{name}",
        "distill",
        "A file of one.",
        ("distill",),
        repeatable=True,
    ),
    Passage(
        "GET", "/v1/distill/drifts/{name}", "distill", "What has drifted.", ("distill",), repeatable=True
    ),
    Passage("GET", "/v1/distill/datasets", "distill", "Exports.", ("distill",), repeatable=True),
    Passage(
        "GET",
        "/v1/distill/datasets/{dataset_id}/files/{name}",
        "distill",
        "A file.",
        ("distill",),
        repeatable=True,
    ),
    Passage(
        "GET",
        "/v1/distill/comparisons/{comparison_id}/files/{name}",
        "distill",
        "A report on two replays.",
        ("distill",),
        repeatable=True,
    ),
)

# Connection matters of one hop, and what this hop decides by itself.
HOP_HEADERS: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
NOT_FORWARDED: Final = HOP_HEADERS | {
    b"host",
    b"authorization",
    b"x-api-key",
    b"cookie",
    b"content-length",
    b"expect",
    b"x-request-id",
    b"traceparent",
    b"forwarded",
    b"x-forwarded-for",
}
NOT_RELAYED: Final = HOP_HEADERS | {
    *(b"x-request-id", b"date", b"server"),
    *(name.encode() for name, _ in (*daemon.SECURITY_HEADERS, *daemon.TLS_HEADERS)),
}
"""What every answer of the gateway has of its own."""
JSON: Final = (b"content-type", b"application/json")
INTERNAL_PREFIX: Final = b"x-stillhouse-"
GATE_HEADER: Final = b"x-stillhouse-validate"
"""What the chats of a key must pass; chatd holds to it."""
METERED: Final = METERED_HEADER.encode()


def forwarded(headers: Headers) -> list[tuple[bytes, bytes]]:
    """What of the client's headers a daemon gets to see: no credentials, no claims of identity."""
    return [
        (name, value)
        for name, value in headers
        if name not in NOT_FORWARDED and not name.startswith(INTERNAL_PREFIX)
    ]


def transit_of(passage: Passage, scope: Scope) -> Transit:
    """The clock of a request that takes a passage."""
    overhead: Overhead = scope["state"]["overhead"]
    return overhead.transit(passage.daemon, arrived_s(scope))


def outgoing_of(
    passage: Passage,
    scope: Scope,
    body: bytes,
    request: context.RequestContext,
    principal: Principal,
    *,
    limiter: Limiter | None,
    sent: Callable[[], None],
) -> Outgoing:
    """The request as the daemon gets it: with our word on who asks, and under which ids."""
    query: bytes = scope["query_string"]
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    headers = forwarded(scope["headers"])
    headers += encoded(request.headers())
    if principal.gate and passage.daemon == "chatd":
        headers.append((GATE_HEADER, principal.gate.encode()))
    if limiter is not None and limiter.tokens is not None and passage.daemon == "chatd":
        headers.append((METERED, b"1"))
    target = path + b"?" + query if query else path
    return Outgoing(passage.method, target, headers, body, passage.repeatable, sent)


def encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def relayed(headers: Headers, limiter: Limiter | None) -> list[tuple[bytes, bytes]]:
    """What of a daemon's headers the client gets to see, and how much its key may still use."""
    passed = [
        (name, value)
        for name, value in headers
        if (lowered := name.lower()) not in NOT_RELAYED and not lowered.startswith(INTERNAL_PREFIX)
    ]
    return passed if limiter is None else passed + encoded(limiter.headers())


def refusal(path: str, error: PlatformError, request_id: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Head and body of what is said on the short ways in place of an answer."""
    ids = [b"x-request-id", MESSAGES_ID] if path == MESSAGES else [b"x-request-id"]
    said = {name: request_id.encode() for name in ids}
    headers = [JSON, *encoded(error_headers(error)), *said.items()]
    return headers, error.envelope(request_id).model_dump_json().encode()


def meter_for(limiter: Limiter | None) -> TokenMeter | None:
    """A meter, where the caller's tokens are counted."""
    return None if limiter is None or limiter.tokens is None else TokenMeter()


class RelayResponse(Response):
    """Passes a daemon's answer on as it arrives, and lets go of the daemon when the client leaves."""

    def __init__(
        self, reply: Reply, stack: AsyncExitStack, limiter: Limiter | None, transit: Transit
    ) -> None:
        self.status_code = reply.status
        self.background = None
        self._reply = reply
        self._stack = stack
        self._limiter = limiter
        self._transit = transit
        self.raw_headers = relayed(reply.headers, limiter)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's own
        try:
            await unless_gone(receive, self._pump(send))
        except ClientGone:
            return
        finally:
            await self._stack.aclose()

    async def _pump(self, send: Send) -> None:
        meter = meter_for(self._limiter)
        if meter is not None:
            meter.head(self._reply.headers)
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            async for chunk in self._reply.body:
                if meter is not None:
                    meter.feed(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            self._transit.answered()
            await send({"type": "http.response.body", "body": b""})
            self._transit.over()
        finally:
            if meter is not None and self._limiter is not None:
                self._limiter.charge(meter.tokens)


def _doorkeeper(request: Request) -> Doorkeeper:
    doorkeeper: Doorkeeper = request.state.doorkeeper
    return doorkeeper


def _fleets(request: Request) -> dict[str, Fleet]:
    fleets: dict[str, Fleet] = request.state.fleets
    return fleets


DoorkeeperDep = Annotated[Doorkeeper, Depends(_doorkeeper)]
FleetsDep = Annotated[dict[str, Fleet], Depends(_fleets)]


def authorization_of(headers: Headers) -> str | None:
    """What the caller presents: the first such header, or the key alone as Anthropic's clients send it."""
    key = None
    for name, value in headers:
        if name == b"authorization":
            return str(value, "latin-1")
        if name == b"x-api-key" and key is None:
            key = f"Bearer {str(value, 'latin-1')}"
    return key


def allowed(
    passage: Passage, doorkeeper: Doorkeeper, authorization: str | None
) -> tuple[Principal, Limiter | None]:
    """Who asks, if they may take this passage. Raises otherwise. Nothing is counted yet."""
    principal, limiter = doorkeeper.identify(authorization)
    principal.require(passage.scopes)
    if passage.unrestricted and principal.roles is not None:
        raise Forbidden("a key that is limited to job roles may not do this", code="role_limited_key")
    return principal, limiter


def check_content(passage: Passage, principal: Principal, body: bytes) -> None:
    """What a route's scope alone does not cover: reading collections on the way of an iteration."""
    if passage.path == ITERATE and _may_name(b"retrieve", body):
        try:
            value = daemon.parse_json(body)
        except orjson.JSONDecodeError:
            return  # chatd says what is wrong with it
        if isinstance(value, dict) and value.get("retrieve") is not None:
            principal.require(READ)


def concerns_run(passage: Passage, body: bytes) -> bool:
    """Whether the answer is a verdict that distill wants, since it is on a run."""
    return passage.path == VALIDATE and _may_name(b"run_id", body)


def _may_name(key: bytes, body: bytes) -> bool:
    """Whether a JSON body may have that key; one spelled with escapes counts."""
    return key in body or b"\\u" in body


async def _record_verdict(distill: DistillClient, body: bytes, answer: bytes) -> bool:
    """Hand a verdict on a run to distill. False when it could not be kept: the caller is told."""
    asked = orjson.loads(body)  # validators took the body, so it is an object
    if (run_id := asked.get("run_id")) is None:
        return True
    judged = {"kind": asked["kind"], "context": asked.get("context", {})}
    record = VerdictRecord(
        run_id=run_id,
        ts=datetime.now(UTC),
        verdict=Verdict.model_validate_json(answer),
        ext={"validate": judged},  # with it the task can be done again
    )
    try:
        kept = await distill.append([record.to_line()])
    except PlatformError as error:
        log.warning("verdict not recorded", run_id=run_id, reason=error.message)
        return False
    return kept.accepted == 1


async def _observed(reply: Reply, body: bytes, distill: DistillClient) -> Reply:
    """The reply of a validation, after its verdict was handed to distill."""
    if reply.status != 200:
        return reply
    answer = b"".join([chunk async for chunk in reply.body])
    kept = await _record_verdict(distill, body, answer)

    async def once() -> AsyncIterator[bytes]:
        yield answer

    headers = [*reply.headers, (b"x-verdict-recorded", b"true" if kept else b"false")]
    return Reply(reply.status, headers, once(), reply.aclose)


def _path_parameters(path: str) -> list[dict[str, object]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)", path)
    ]


def _forward(passage: Passage) -> Callable[..., Awaitable[Response]]:
    async def forward(request: Request, doorkeeper: DoorkeeperDep, fleets: FleetsDep) -> Response:
        principal, limiter = allowed(passage, doorkeeper, authorization_of(request.scope["headers"]))
        if limiter is not None:  # only what may pass counts against the caller's rate
            await limiter.admit_asking()
        current = context.current()
        assert current is not None, "RequestMiddleware runs first"
        current.principal, current.roles = principal.name, principal.roles
        body = await request.body()
        check_content(passage, principal, body)
        transit = transit_of(passage, request.scope)
        outgoing = outgoing_of(
            passage, request.scope, body, current, principal, limiter=limiter, sent=transit.sent
        )
        async with AsyncExitStack() as stack:
            try:
                opening = stack.enter_async_context(fleets[passage.daemon].exchange(outgoing))
                reply = await unless_gone(request.receive, opening)
                if concerns_run(passage, body):
                    reply = await _observed(reply, body, request.state.distill)
            except ClientGone:
                return Response(status_code=CLIENT_GONE_STATUS)
            return RelayResponse(reply, stack.pop_all(), limiter, transit)
        raise AssertionError("unreachable")

    return forward


for _passage in PASSAGES:
    routes.add_api_route(
        _passage.path,
        _forward(_passage),
        methods=[_passage.method],
        tags=[_passage.daemon],
        summary=_passage.summary,
        openapi_extra={"parameters": _path_parameters(_passage.path)},
        response_class=Response,  # of whatever type the daemon's answer is
        name=f"{_passage.method} {_passage.path}",
        operation_id=re.sub(r"\W+", "_", f"{_passage.method}{_passage.path}").strip("_").lower(),
    )
