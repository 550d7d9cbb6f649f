"""The short way of `POST /v1/embeddings`: the same checks as on the long one, and nothing encoded twice.

A request in the usual form is read here, its texts go to embedd in frames, and the answer is spliced from the
fragments that come back. Anything else in a body takes the long way, where embedd itself says what is wrong.
"""

import time
from collections.abc import Callable
from typing import Any, Final, cast

import orjson
from starlette.types import Scope

from gateway.engine import Doorkeeper, Limiter, Rendezvous, Transit, Vectors, Wanted
from gateway.routes.passages import EMBEDDINGS, PASSAGES, encoded, transit_of
from schemas.embeddings import EncodingFormat, InputType
from services import context
from services.errors import PlatformError
from services.middleware import Frame, arrived_s, error_headers
from services.protocol import DirectExchange

PASSAGE: Final = next(passage for passage in PASSAGES if passage.path == EMBEDDINGS)
TEXTS_MAX: Final = 128
"""Larger requests take the long way, where the answer passes through in pieces."""
BODY_BYTES_MAX: Final = 1024 * 1024

JSON: Final = (b"content-type", b"application/json")
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
    if not isinstance(data, dict):
        return None
    get = data.get
    model, texts, encoding = get("model"), get("input"), get("encoding_format", "float")
    input_type, truncate, dimensions = get("input_type"), get("truncate", False), get("dimensions")
    if isinstance(texts, str):
        texts = [texts]
    usual = (
        isinstance(model, str)
        and model != ""
        and _are_texts(texts)
        and encoding in ENCODINGS
        and input_type in INPUT_TYPES
        and isinstance(truncate, bool)
        and _is_size(dimensions)
        and isinstance(get("user", ""), str)
    )
    if not usual:
        return None
    return Wanted(
        request.request_id,
        request.traceparent,
        cast("str", model),
        cast("list[str]", texts),
        cast("InputType | None", input_type),
        cast("bool", truncate),
        dimensions,
        cast("EncodingFormat", encoding),
    )


def _are_texts(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(value) <= TEXTS_MAX
        and all(isinstance(text, str) for text in value)
    )


def _is_size(value: Any) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)


def spliced(wanted: Wanted, vectors: Vectors) -> bytes:
    """The OpenAI answer, put together from its fragments."""
    tail = (b'}],"model":', orjson.dumps(wanted.model), USAGE % (vectors.tokens, vectors.tokens))
    if len(vectors.fragments) == 1:
        return b"".join((FIRST, vectors.fragments[0], *tail))
    pieces = [FIRST, vectors.fragments[0]]
    for index in range(1, len(vectors.fragments)):
        pieces += (b"},", ROW % index, vectors.fragments[index])
    return b"".join((*pieces, *tail))


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
            authorization, is_json = _read(scope)
            if not is_json:
                return False
            principal, limiter = doorkeeper.identify(authorization)
            principal.require(PASSAGE.scopes)
            request = self._frame.identify(scope)
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
        visit = _Visit(
            self._frame, exchange, request, wanted, limiter=limiter, transit=transit_of(PASSAGE, scope)
        )
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
        "_transit",
        "_wanted",
        "cancel",
    )

    def __init__(
        self,
        frame: Frame,
        exchange: DirectExchange,
        request: context.RequestContext,
        wanted: Wanted,
        *,
        limiter: Limiter | None,
        transit: Transit,
    ) -> None:
        self._frame = frame
        self._exchange = exchange
        self._request = request
        self._wanted = wanted
        self._limiter = limiter
        self._transit = transit
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
        self._transit.answered()
        seconds = time.perf_counter() - self._started
        if isinstance(outcome, PlatformError):
            status, headers, body = _error(outcome, self._request.request_id)
        else:
            self._transit.sent_at(outcome.sent_s)
            status, headers, body = 200, _headers(outcome, seconds), spliced(self._wanted, outcome)
            if self._limiter is not None:
                self._limiter.charge(outcome.tokens)
                headers += encoded(self._limiter.headers())
        headers.append((b"x-request-id", self._request.request_id.encode()))
        self._exchange.respond(status, headers, body)
        self._transit.over()
        self._frame.end(self._exchange.scope, self._request, status, seconds)


def _error(error: PlatformError, request_id: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    body = error.envelope(request_id).model_dump_json().encode()
    return error.status, [JSON, *encoded(error_headers(error))], body


def _headers(vectors: Vectors, seconds: float) -> list[tuple[bytes, bytes]]:
    return [
        JSON,
        (b"x-model-digest", vectors.digest.encode()),
        (b"x-cache", b"hits=%d misses=%d" % (vectors.hits, vectors.misses)),
        (b"x-queue-time", b"%.2f" % vectors.queue_ms),
        (b"x-inference-time", b"%.2f" % vectors.inference_ms),
        (b"x-total-time", b"%.2f" % (seconds * 1000)),
    ]


def _read(scope: Scope) -> tuple[str | None, bool]:
    """Who says to ask, and whether they say that the body is JSON."""
    authorization, is_json = None, False
    for name, value in scope["headers"]:
        if name == b"authorization" and authorization is None:  # the first, as the long way reads it
            authorization = str(value, "latin-1")
        elif name == b"content-type":
            is_json = value == JSON[1] or value.startswith(b"application/json;")
    return authorization, is_json
