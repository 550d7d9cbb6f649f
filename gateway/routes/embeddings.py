"""The short way of `POST /v1/embeddings`: the same checks as on the long one, and nothing encoded twice.

A request in the usual form is read here, its texts go to embedd in frames, and the answer is spliced from the
fragments that come back. Anything else in a body takes the long way, where embedd itself says what is wrong.
"""

import time
from collections.abc import Callable
from typing import Any, Final

import orjson
from starlette.types import Scope

from gateway.engine import Doorkeeper, Limiter, Overhead, Rendezvous, Vectors, Wanted
from gateway.routes.passages import EMBEDDINGS, PASSAGES, refusal
from services import context
from services.errors import PlatformError
from services.middleware import Claims, Frame, arrived_s, claims
from services.protocol import JSON_TYPE, DirectExchange

PASSAGE: Final = next(passage for passage in PASSAGES if passage.path == EMBEDDINGS)
TEXTS_MAX: Final = 128
"""Larger requests take the long way, where the answer passes through in pieces."""
BODY_BYTES_MAX: Final = 1024 * 1024

ENCODINGS: Final = ("float", "base64")
INPUT_TYPES: Final = (None, "query", "document")

ROW: Final = b'{"object":"embedding","index":%d,"embedding":'
FIRST: Final = b'{"object":"list","data":[' + ROW % 0
USAGE: Final = b',"usage":{"prompt_tokens":%d,"total_tokens":%d}}'


def parse(body: bytes, request: context.RequestContext) -> Wanted | None:
    """What a body in the usual form asks for; None for any other."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if type(data) is not dict:
        return None
    get: Callable[..., Any] = data.get
    model, texts, encoding = get("model"), get("input"), get("encoding_format", "float")
    input_type, truncate, dimensions = get("input_type"), get("truncate", False), get("dimensions")
    if isinstance(texts, str):
        texts = [texts]
    usual = (
        type(model) is str
        and model
        and _are_texts(texts)
        and encoding in ENCODINGS
        and input_type in INPUT_TYPES
        and type(truncate) is bool
        and (dimensions is None or _is_size(dimensions))
        and type(get("user", "")) is str
    )
    if not usual:
        return None
    return Wanted(
        request.request_id,
        request.traceparent,
        model,
        texts,
        input_type,
        truncate,
        dimensions,
        encoding,
    )


def _are_texts(value: Any) -> bool:
    return type(value) is list and 0 < len(value) <= TEXTS_MAX and set(map(type, value)) == {str}


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 1


def spliced(wanted: Wanted, vectors: Vectors) -> list[bytes]:
    """The OpenAI answer, put together from its fragments: the pieces, in order."""
    pieces = [FIRST, vectors.fragments[0]]
    for index in range(1, len(vectors.fragments)):
        pieces += (b"},", ROW % index, vectors.fragments[index])
    pieces += (b'}],"model":', orjson.dumps(wanted.model), USAGE % (vectors.tokens, vectors.tokens))
    return pieces


class EmbeddingsDoor:
    """Takes embedding requests in the usual form; keys, limits and the frame are those of the long way."""

    path = PASSAGE.path

    def __init__(self, frame: Frame, *, body_bytes_max: int) -> None:
        self.body_bytes_max = min(body_bytes_max, BODY_BYTES_MAX)
        self._frame = frame

    def take(self, exchange: DirectExchange) -> bool:
        """Whether the request is answered here. One that is refused takes the long way, which says why."""
        scope = exchange.scope
        if self._frame.drain.draining:
            return False
        doorkeeper: Doorkeeper = scope["state"]["doorkeeper"]
        rendezvous: Rendezvous = scope["state"]["rendezvous"]
        try:
            authorization, is_json, claimed = exchange.in_head(_read)
            if not is_json:
                return False
            principal, limiter = doorkeeper.identify(authorization)
            principal.require(PASSAGE.scopes)
            request = self._frame.identify_as(claimed)
            wanted = parse(exchange.body, request)
            if wanted is None:
                return False
            if limiter is not None:
                limiter.admit()
        except PlatformError:
            return False
        request.principal, request.roles = principal.name, principal.roles
        self._frame.drain.in_flight += 1
        scope["route"] = self  # metrics and logs know a matched route by its `path`
        visit = _Visit(self._frame, exchange, request, wanted, limiter)
        exchange.when_gone = visit.leave
        visit.cancel = rendezvous.start(wanted, visit.answer)
        return True


class _Visit:
    """One request on its way through the door, and what is said when it is done."""

    __slots__ = (
        "_done",
        "_exchange",
        "_frame",
        "_limiter",
        "_request",
        "_started",
        "_wanted",
        "cancel",
    )

    def __init__(
        self,
        frame: Frame,
        exchange: DirectExchange,
        request: context.RequestContext,
        wanted: Wanted,
        limiter: Limiter | None,
    ) -> None:
        self._frame = frame
        self._exchange = exchange
        self._request = request
        self._wanted = wanted
        self._limiter = limiter
        self._started = arrived_s(exchange.scope)
        self._done = False
        self.cancel: Callable[[], None] | None = None

    def leave(self) -> None:
        """The caller is gone: so is the reason to work for them."""
        self._done = True
        if self.cancel is not None:
            self.cancel()
        self._frame.end(self._exchange.scope, self._request, 0, time.perf_counter() - self._started)

    def answer(self, outcome: Vectors | PlatformError) -> None:
        if self._done:  # the caller left in the same moment
            return
        self._done = True
        answered_s = time.perf_counter()
        seconds = answered_s - self._started
        if isinstance(outcome, PlatformError):
            status = outcome.status
            self._refuse(outcome)
        else:
            status = 200
            self._tell(outcome, seconds)
            overhead: Overhead = self._exchange.scope["state"]["overhead"]
            if outcome.sent_s:
                overhead.count(PASSAGE.daemon, self._started, outcome.sent_s, answered_s)
        self._frame.end(self._exchange.scope, self._request, status, seconds)

    def _tell(self, vectors: Vectors, seconds: float) -> None:
        limits = ""
        if self._limiter is not None:
            self._limiter.charge(vectors.tokens)
            limits = "".join(f"{name}: {left}\r\n" for name, left in self._limiter.headers().items())
        head = (
            "content-type: application/json\r\n"
            f"x-model-digest: {vectors.digest}\r\n"
            f"x-cache: hits={vectors.hits} misses={vectors.misses}\r\n"
            f"x-queue-time: {vectors.queue_ms:.2f}\r\n"
            f"x-inference-time: {vectors.inference_ms:.2f}\r\n"
            f"x-total-time: {seconds * 1000:.2f}\r\n"
            f"{limits}x-request-id: {self._request.request_id}\r\n"
        )
        self._exchange.respond(200, head.encode(), *spliced(self._wanted, vectors))

    def _refuse(self, error: PlatformError) -> None:
        headers, body = refusal(PASSAGE.path, error, self._request.request_id)
        self._exchange.respond(error.status, headers, body)


def _read(scope: Scope) -> tuple[str | None, bool, Claims]:
    """Who says to ask, whether they say that the body is JSON, and what else they say of the request."""
    authorization, is_json = None, False
    for name, value in scope["headers"]:
        if name == b"authorization" and authorization is None:  # the first, as the long way reads it
            authorization = str(value, "latin-1")
        elif name == b"content-type":
            is_json = value == JSON_TYPE or value.startswith(JSON_TYPE + b";")
    return authorization, is_json, claims(scope)
