"""`POST /v1/embeddings`, and the hop that the gateway takes instead: parse, ask the engine, answer."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Annotated, Any

import orjson
from fastapi import Depends, Request, Response
from fastapi.responses import StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from embedd.engine import Embedded, Engine
from embedd.settings import Settings
from schemas import hop
from schemas.embeddings import EmbeddingRequest, EmbeddingResponse
from services import context, daemon, ids, tracing
from services.context import RequestContext
from services.disconnect import ClientGone, unless_gone
from services.errors import InvalidRequest, PlatformError
from services.middleware import UNEXPECTED, Frame
from services.protocol import DirectExchange
from services.tasks import TaskSet, task_set
from services.tracing import Tracer

CHARS_A_TOKEN = 3
ROWS_A_CHUNK = 64

INPUT_TYPES = (None, "query", "document")
ENCODINGS = ("base64", "float")

Part = tuple[int, bytes]
"""Of the answer to a frame: the status that its call would have had by itself, and the bytes."""

FOUND = 200
"""Of what is answered at once, that which was in the cache: the rest is refused."""

Later = Callable[[hop.Call], Coroutine[Any, Any, bytes]]
"""Makes the part of a call that takes a while."""

routes = daemon.router()


def _engine(request: Request) -> Engine:
    engine: Engine = request.state.engine
    return engine


def _settings(request: Request) -> Settings:
    settings: Settings = request.state.settings
    return settings


EngineDep = Annotated[Engine, Depends(_engine)]
SettingsDep = Annotated[Settings, Depends(_settings)]


def checked_texts(items: Any, settings: Settings) -> list[str]:
    """The texts to embed, within the limits. Raises `InvalidRequest` naming the item."""
    texts = [items] if isinstance(items, str) else items
    if not texts:
        raise InvalidRequest("`input` is empty; send a text or a list of texts", param="input")
    if len(texts) > settings.inputs_max:
        raise InvalidRequest(
            f"`input` has {len(texts)} texts; at most {settings.inputs_max} are accepted", param="input"
        )
    characters = 0
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidRequest(
                "`input` holds token ids, whose encoding is not known here; send texts "
                "(in LangChain: check_embedding_ctx_length=False)",
                param="input",
                code="token_input",
            )
        _check_text(text, index, settings.text_chars_max)
        characters += len(text)
    if characters > settings.tokens_max * CHARS_A_TOKEN:
        raise InvalidRequest(
            f"`input` has some {characters // CHARS_A_TOKEN} tokens; at most {settings.tokens_max} are"
            " accepted in one request",
            param="input",
        )
    return list(texts)


def _check_text(text: str, index: int, chars_max: int) -> None:
    if not text or text.isspace():
        raise InvalidRequest(f"`input.{index}` is empty", param=f"input.{index}")
    if len(text) > chars_max:
        raise InvalidRequest(
            f"`input.{index}` has {len(text)} characters; at most {chars_max} are accepted",
            param=f"input.{index}",
        )
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidRequest(f"`input.{index}` has half a surrogate pair", param=f"input.{index}")


@routes.post("/v1/embeddings", response_model=EmbeddingResponse)
async def embeddings(
    request: Request, body: EmbeddingRequest, engine: EngineDep, settings: SettingsDep
) -> Response:
    """Embed one text or many, in order. Vectors are L2-normalised float32."""
    started = time.perf_counter()
    order = engine.order(
        body.model, checked_texts(body.input, settings), body.input_type, truncate=body.truncate
    )
    embedded = engine.cached(order)
    if embedded is not None:
        engine.count_hits(len(order.texts))
    else:
        embedded = await unless_gone(request.receive, engine.embed(order))
    engine.check_dimensions(embedded, body.dimensions)
    return StreamingResponse(
        _answer(engine, embedded, body),
        media_type="application/json",
        headers={
            "x-model-digest": embedded.digest,
            "x-cache": f"hits={embedded.hits} misses={embedded.misses}",
            "x-queue-time": f"{embedded.queue_ms:.2f}",
            "x-inference-time": f"{embedded.inference_ms:.2f}",
            "x-total-time": f"{(time.perf_counter() - started) * 1000:.2f}",
        },
    )


async def _answer(engine: Engine, embedded: Embedded, body: EmbeddingRequest) -> AsyncIterator[bytes]:
    """The OpenAI answer, some rows at a time, so that a large one is never in memory as a whole."""
    yield b'{"object":"list","data":['
    count = len(embedded.keys)
    for start in range(0, count, ROWS_A_CHUNK):
        rows = range(start, min(start + ROWS_A_CHUNK, count))
        fragments = engine.fragments(embedded, rows, body.encoding_format, body.dimensions)
        yield b"".join(
            b'%b{"object":"embedding","index":%d,"embedding":%b}' % (b"," if row else b"", row, fragment)
            for row, fragment in zip(rows, fragments, strict=True)
        )
    tokens = embedded.prompt_tokens
    usage = b'"usage":{"prompt_tokens":%d,"total_tokens":%d}' % (tokens, tokens)
    yield b'],"model":%b,%b}' % (orjson.dumps(body.model), usage)


# --- the hop from the gateway -------------------------------------------------------------------


def _well_formed(source: Any, calls: list[Any], cancelled: Any) -> bool:
    """Whether the values of a frame are of their types; what they say is looked at call by call."""
    if type(source) is not str or type(cancelled) is not list:
        return False
    if any(type(call_id) is not int for call_id in cancelled):
        return False
    for call in calls:
        call_id, request_id, traceparent, model, input_type, truncate, dimensions, encoding, texts = call
        if not (
            type(call_id) is int
            and type(request_id) is str
            and type(traceparent) is str
            and type(model) is str
            and input_type in INPUT_TYPES
            and type(truncate) is bool
            and (dimensions is None or (type(dimensions) is int and dimensions > 0))
            and encoding in ENCODINGS
            and type(texts) is list
        ):
            return False
    return True


class Hop:
    """Answers a frame of calls in parts: cached ones at once, the others as they are done."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, int], asyncio.Task[Any]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = HOP_ROUTE
        request = Request(scope, receive)
        try:
            source, calls, cancelled = hop.decode_request(await request.body())
        except ValueError as error:
            raise InvalidRequest(f"not a frame of the hop: {error}") from None
        if not _well_formed(source, calls, cancelled):
            raise InvalidRequest("not a frame of the hop: a value in it is of another type")
        for call_id in cancelled:
            if (task := self._running.get((source, call_id))) is not None:
                task.cancel()
        engine, settings = _engine(request), _settings(request)
        tracer = _untraced(scope)
        ready: list[bytes] = []
        slow: list[hop.Call] = []
        found = 0
        for call in calls:
            started = time.perf_counter()
            part = _at_once(engine, settings, call)
            if part is None:
                slow.append(call)
            else:
                status, data = part
                ready.append(data)
                found += len(call.texts) if status == FOUND else 0
                if tracer is not None:
                    _trace(tracer, call, status, time.perf_counter() - started)
        engine.count_hits(found)
        head = [(b"content-type", hop.CONTENT_TYPE)]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        if ready or not slow:
            await send({"type": "http.response.body", "body": b"".join(ready), "more_body": bool(slow)})
        if slow:
            later = partial(_later, engine, settings, tracer)
            await unless_gone(receive, self._slowly(source, slow, later, send))

    async def _slowly(self, source: str, calls: list[hop.Call], later: Later, send: Send) -> None:
        done: asyncio.Queue[bytes] = asyncio.Queue()
        async with task_set() as tasks:
            for call in calls:
                self._start(tasks, source, call, later(call), done)
            for left in reversed(range(len(calls))):
                part = await done.get()
                await send({"type": "http.response.body", "body": part, "more_body": left > 0})

    def _start(
        self,
        tasks: TaskSet,
        source: str,
        call: hop.Call,
        work: Coroutine[Any, Any, bytes],
        done: asyncio.Queue[bytes],
    ) -> None:
        task = tasks.start(work, name="hop call")
        self._running[source, call.id] = task
        task.add_done_callback(partial(self._ended, source, call, done))

    def _ended(
        self, source: str, call: hop.Call, done: asyncio.Queue[bytes], task: asyncio.Task[bytes]
    ) -> None:
        """Put the call's part, whatever became of it: the gateway counts on one for each."""
        if self._running.get((source, call.id)) is task:
            del self._running[source, call.id]
        if task.cancelled():
            part = _refusal(call, ClientGone("the call was taken back"))
        elif task.exception() is not None:  # the task set has logged it
            part = _refusal(call, PlatformError(UNEXPECTED))
        else:
            part = task.result()
        done.put_nowait(part)


def _at_once(engine: Engine, settings: Settings, call: hop.Call) -> Part | None:
    """The part of a call that needs no waiting: cached as a whole, or refused. None for the others."""
    try:
        texts = checked_texts(call.texts, settings)
        embedded = engine.cached(engine.order(call.model, texts, call.input_type, truncate=call.truncate))
        return None if embedded is None else (FOUND, _part(engine, call, embedded))
    except PlatformError as error:
        return error.status, _refusal(call, error)


async def _later(engine: Engine, settings: Settings, tracer: Tracer | None, call: hop.Call) -> bytes:
    """The part of a call that is computed, under the ids of its caller's request."""
    started = time.perf_counter()
    request = _continued(tracer, call)
    status = PlatformError.status
    try:
        with context.within(request):
            texts = checked_texts(call.texts, settings)
            order = engine.order(call.model, texts, call.input_type, truncate=call.truncate)
            part = _part(engine, call, await engine.embed(order))
        status = 200
    except PlatformError as error:
        status = error.status
        part = _refusal(call, error)
    except asyncio.CancelledError:
        status = ClientGone.status
        raise
    finally:
        if tracer is not None:
            seconds = time.perf_counter() - started
            tracer.served(request, route=hop.PATH, method="POST", status=status, seconds=seconds)
    return part


def _continued(tracer: Tracer | None, call: hop.Call) -> RequestContext:
    """The request that a call is a part of."""
    if tracer is None:
        return RequestContext(call.request_id, ids.child_traceparent(call.traceparent))
    return tracer.continued(call.request_id, call.traceparent)


def _untraced(scope: Scope) -> Tracer | None:
    """The tracer, for the calls of a frame; the frame itself is left out of traces."""
    current = context.current()
    if current is not None:
        tracing.leave_out(current)
    tracer: Tracer | None = scope["app"].tracer
    return tracer


def _trace(tracer: Tracer, call: hop.Call, status: int, seconds: float) -> None:
    """A span for a call that was answered at once."""
    request = tracer.continued(call.request_id, call.traceparent)
    tracer.served(request, route=hop.PATH, method="POST", status=status, seconds=seconds)


def _part(engine: Engine, call: hop.Call, embedded: Embedded) -> bytes:
    engine.check_dimensions(embedded, call.dimensions)
    return hop.encode_answered(
        hop.Answered(
            call.id,
            embedded.digest,
            embedded.hits,
            embedded.misses,
            [entry.prompt_tokens for entry in embedded.entries],
            embedded.queue_ms,
            embedded.inference_ms,
            engine.fragments(embedded, range(len(embedded.keys)), call.encoding, call.dimensions),
        )
    )


def _refusal(call: hop.Call, error: PlatformError) -> bytes:
    body = error.envelope(call.request_id).error
    return hop.encode_refused(hop.Refused(call.id, error.status, body, error.retry_after_s))


class HopDoor:
    """Takes frames all of whose calls are cached, without a task; others take the route."""

    path = hop.PATH
    body_bytes_max = 4 * 1024 * 1024

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def take(self, exchange: DirectExchange) -> bool:
        state = exchange.scope["state"]
        engine: Engine = state["engine"]
        try:
            source, calls, cancelled = hop.decode_request(exchange.body)
        except ValueError:
            return False
        if cancelled or self._frame.drain.draining or not _well_formed(source, calls, cancelled):
            return False
        started = time.perf_counter()
        parts: list[Part] = []
        for call in calls:
            part = _at_once(engine, state["settings"], call)
            if part is None:
                return False
            parts.append(part)
        statuses = [status for status, _ in parts]
        engine.count_hits(
            sum(len(call.texts) for call, status in zip(calls, statuses, strict=True) if status == FOUND)
        )
        exchange.scope["route"] = HOP_ROUTE
        request = self._frame.begin(exchange.scope)
        if self._frame.tracer is not None:
            seconds = time.perf_counter() - started
            for call, status in zip(calls, statuses, strict=True):
                _trace(self._frame.tracer, call, status, seconds)
        tracing.leave_out(request)
        headers = [(b"content-type", hop.CONTENT_TYPE), (b"x-request-id", request.request_id.encode())]
        exchange.respond(200, headers, *(data for _, data in parts))
        self._frame.end(exchange.scope, request, 200, time.perf_counter() - started)
        return True


def hop_route() -> Route:
    """The hop as a route. It is between our daemons, so it is not part of the published API."""
    return Route(hop.PATH, Hop(), methods=["POST"], include_in_schema=False)


HOP_ROUTE = hop_route()  # what logs and metrics know a frame by
