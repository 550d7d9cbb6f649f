"""Search in one collection, and retrieve from several.

A search by vector, asked for in the usual form, is answered without a task. Anything else takes the long way,
which also says what is wrong with it; both find the same.
"""

import math
import time
from typing import Any, Final

import orjson
from pydantic import TypeAdapter, ValidationError
from starlette.types import Scope

from schemas.vectors import (
    EF_MAX,
    BoundedFilter,
    Filter,
    RetrieveRequest,
    RetrieveResponse,
    SearchRequest,
    SearchResponse,
    numbers_of,
)
from services import daemon
from services.context import RequestContext
from services.errors import PlatformError
from services.middleware import Frame
from services.protocol import DirectExchange, says_json
from vectord.engine import Engine, PromptQuestion
from vectord.routes.parts import EngineDep, LimitedDep, Name

SEARCH: Final = "/v1/collections/{name}/search"

routes = daemon.router()


@routes.post(SEARCH, response_model_exclude_none=True)
async def search(name: Name, body: SearchRequest, engine: EngineDep, limited: LimitedDep) -> SearchResponse:
    """The nearest points to a text or a vector."""
    return await engine.searches.search(name, body, limited)


@routes.post("/v1/retrieve")
async def retrieve(body: RetrieveRequest, engine: EngineDep, limited: LimitedDep) -> RetrieveResponse:
    """One question to several collections, with a report of the role gate."""
    return await engine.searches.retrieve(body, limited)


# --- the short way ----------------------------------------------------------------------------

FIELDS: Final = {"vector", "k", "mode", "filter", "role", "exact", "ef", "score_min", "with"}
PARTS: Final = {"payload", "text"}
SCORE_MAX: Final = 1e15
FILTER: Final[TypeAdapter[Filter]] = TypeAdapter(BoundedFilter)
JSON: Final = b"application/json"


def usual(body: bytes) -> PromptQuestion | None:
    """What a body in the usual form asks for; None for any other, and for any that is wrong.

    Of the vector it says only that it is a list, of whatever.
    """
    try:
        data: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(data, dict) or not data.keys() <= FIELDS:
        return None
    vector: Any = data.get("vector")
    k, ef = data.get("k", 10), data.get("ef")
    role, exact, least = data.get("role"), data.get("exact", False), data.get("score_min")
    parts = data.get("with", ("payload", "text"))
    if not (
        type(vector) in (list, str)
        and type(k) is int
        and k > 0
        and data.get("mode", "dense") == "dense"
        and (ef is None or (type(ef) is int and 0 < ef <= EF_MAX))
        and (role is None or type(role) is str)
        and type(exact) is bool
        and (least is None or (type(least) in (int, float) and abs(least) < SCORE_MAX))
        and isinstance(parts, list | tuple)
        and all(type(part) is str and part in PARTS for part in parts)
    ):
        return None
    given = data.get("filter")
    try:
        if type(vector) is str:
            vector = numbers_of(vector)
        filter_ = None if given is None else _filter(body, given)
    except (ValidationError, ValueError):
        return None
    return PromptQuestion(vector, k, filter_, role, exact, least, frozenset(parts), ef)


def _filter(body: bytes, given: Any) -> Filter:
    """Raises ValueError for what is to be read with more care."""
    if daemon.LONG_NUMBER.search(body):
        raise ValueError("long numbers")
    return FILTER.validate_python(given)


class SearchDoor:
    """Takes searches by vector in the usual form. What is refused takes the long way, which says why."""

    path = SEARCH
    body_bytes_max = 256 * 1024

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def take(self, exchange: DirectExchange) -> bool:
        """Whether the request is answered here."""
        scope = exchange.scope
        if self._frame.drain.draining or not says_json(scope):
            return False
        started = time.perf_counter()
        question = usual(exchange.body)
        if question is None:
            return False
        engine: Engine = scope["state"]["engine"]
        visit = _Visit(self._frame, exchange, self._frame.identify(scope), started, exact=question.exact)
        try:
            begun = engine.prompt.begin(_name(scope), question, visit.request.roles, visit.done)
        except PlatformError:
            return False
        if begun:
            scope["route"] = self  # metrics and logs know a matched route by its `path`
            self._frame.drain.in_flight += 1
            exchange.when_gone = visit.leave
        return begun


class _Visit:
    """One search on its way to its answer."""

    __slots__ = ("_exact", "_exchange", "_frame", "_gone", "_started", "request")

    def __init__(
        self, frame: Frame, exchange: DirectExchange, request: RequestContext, started: float, *, exact: bool
    ) -> None:
        self._frame = frame
        self._exchange = exchange
        self._started = started
        self._exact = exact
        self._gone = False
        self.request = request

    def leave(self) -> None:
        self._gone = True

    def done(self, found: list[bytes] | PlatformError) -> None:
        seconds = time.perf_counter() - self._started
        headers = [(b"content-type", JSON), (b"x-request-id", self.request.request_id.encode())]
        if isinstance(found, PlatformError):
            status, body = found.status, found.envelope(self.request.request_id).model_dump_json().encode()
            if found.retry_after_s is not None:
                headers.append((b"retry-after", str(math.ceil(found.retry_after_s)).encode()))
        else:
            exact = b"true" if self._exact else b"false"
            status = 200
            body = b'{"hits":[%b],"took_ms":%.3f,"exact":%b}' % (b",".join(found), seconds * 1000, exact)
        self._exchange.respond(status, headers, body)
        self._frame.end(self._exchange.scope, self.request, 0 if self._gone else status, seconds)


def _name(scope: Scope) -> str:
    """The collection in the path, which matched `SEARCH`."""
    path: str = scope["path"]
    return path.split("/")[3]
