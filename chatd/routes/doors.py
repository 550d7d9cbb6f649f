"""The short way of the routes that answer chats: the same conversation, without FastAPI around it.

A body that is read as what it is asked to be is answered here, by one task. Any other takes the ordinary
way, which says what is wrong with it.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Final

import orjson
import structlog
from pydantic import ValidationError

from chatd.engine.surfaces import ChatSurface, MessagesSurface, ResponsesSurface, Surface, messages, responses
from chatd.routes import chat
from chatd.routes import messages as anthropic
from chatd.routes import responses as newer
from chatd.routes.conversation import STREAM_HEADERS, Conversation, Told, conversation
from schemas.chat import ChatRequest
from schemas.messages import MessagesRequest
from schemas.responses import ResponsesRequest
from services import context
from services.daemon import LONG_NUMBER
from services.errors import PlatformError
from services.middleware import CLIENT_GONE, UNEXPECTED, Frame, error_headers
from services.protocol import DirectExchange, Doors, says_json
from services.tasks import TaskSet

log = structlog.get_logger(__name__)

Read = Callable[[Any], tuple[ChatRequest, Surface]]
"""Makes a request of a body's JSON. Raises `ValidationError` or `PlatformError`."""

BODY_BYTES_MAX: Final = 1024 * 1024
"""Larger requests take the ordinary way, which reads no more than there is use for."""

JSON: Final = (b"content-type", b"application/json")
EVENTS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    *((name.encode(), value.encode()) for name, value in STREAM_HEADERS.items()),
)


def _chat(data: Any) -> tuple[ChatRequest, Surface]:
    request = ChatRequest.model_validate(data)
    return request, ChatSurface(with_usage=request.include_usage)


def _response(data: Any) -> tuple[ChatRequest, Surface]:
    request = ResponsesRequest.model_validate(data)
    return responses.asked(request), ResponsesSurface(request)


def _message(data: Any) -> tuple[ChatRequest, Surface]:
    return messages.asked(MessagesRequest.model_validate(data)), MessagesSurface()


def chat_doors(frame: Frame, *, body_bytes_max: int) -> Doors:
    """A door for each API."""
    bytes_max = min(body_bytes_max, BODY_BYTES_MAX)
    return Doors(
        [
            ChatDoor(frame, chat.PATH, _chat, bytes_max),
            ChatDoor(frame, newer.PATH, _response, bytes_max),
            ChatDoor(frame, anthropic.PATH, _message, bytes_max, own_id=anthropic.REQUEST_ID_HEADER),
        ]
    )


class ChatDoor:
    """Takes the requests of one API."""

    def __init__(
        self, frame: Frame, path: str, read: Read, body_bytes_max: int, *, own_id: str | None = None
    ) -> None:
        self.path = path  # by which metrics and logs know it as well: it serves as `route`
        self.body_bytes_max = body_bytes_max
        self._frame = frame
        self._read = read
        self._own_id = own_id

    def take(self, exchange: DirectExchange) -> bool:
        """Whether the request is answered here."""
        scope, body = exchange.scope, exchange.body
        if self._frame.drain.draining or not says_json(scope) or LONG_NUMBER.search(body):
            return False
        try:
            request, surface = self._read(orjson.loads(body))
            talk = conversation(request, surface, scope)
        except (orjson.JSONDecodeError, ValidationError, PlatformError):
            return False
        who = self._frame.begin(scope)
        if self._own_id is not None:
            talk.headers[self._own_id] = who.request_id
        scope["route"] = self
        visit = _Visit(self._frame, exchange, who, talk)
        tasks: TaskSet = scope["state"]["visits"]
        visit.task = tasks.start(visit.run(), name="chat")
        return True


class _Visit:
    """One request on its way through a door."""

    __slots__ = ("_exchange", "_frame", "_ready", "_started", "_status", "_talk", "_who", "gone", "task")

    def __init__(
        self, frame: Frame, exchange: DirectExchange, who: context.RequestContext, talk: Conversation
    ) -> None:
        self._frame = frame
        self._exchange = exchange
        self._who = who
        self._talk = talk
        self._started = time.perf_counter()
        self._status = 0
        self._ready: asyncio.Event | None = None
        self.task: asyncio.Task[None] | None = None
        exchange.when_gone = self._leave
        exchange.when_full = self._hold
        exchange.when_ready = self._go_on

    def _leave(self) -> None:
        """The caller is gone: so is the reason to work for them."""
        if self.task is not None:
            self.task.cancel()

    def _hold(self) -> None:
        self._ready = asyncio.Event()

    def _go_on(self) -> None:
        if self._ready is not None:
            self._ready.set()

    async def run(self) -> None:
        context.enter(self._who)
        state = self._exchange.scope["state"]
        try:
            told = await self._talk.answer(state["dispatcher"], state["gate"])
            if self._talk.request.stream:
                await self._stream(told, state["settings"].write_timeout_s)
            else:
                self._respond(200, [JSON], told.body)
        except PlatformError as error:
            self._refuse(error)
        except Exception:
            log.exception("unexpected failure", route=self._route)
            self._refuse(PlatformError(UNEXPECTED))
        finally:
            seconds = time.perf_counter() - self._started
            self._frame.end(self._exchange.scope, self._who, self._status or CLIENT_GONE, seconds)

    @property
    def _route(self) -> str:
        return str(self._exchange.scope["path"])

    def _headers(self) -> list[tuple[bytes, bytes]]:
        said = [
            (name.encode(), value.encode("latin-1", "replace")) for name, value in self._talk.headers.items()
        ]
        said.append((b"x-request-id", self._who.request_id.encode()))
        return said

    def _respond(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self._status = status
        self._exchange.respond(status, [*headers, *self._headers()], body)

    def _refuse(self, error: PlatformError) -> None:
        """Say what is wrong, unless something else was said already."""
        if self._status:
            self._exchange.cut()
            return
        if error.status >= 500:
            log.warning("request failed", code=error.code, reason=error.summary)
        headers = {**self._talk.headers, **error_headers(error)}
        self._talk.headers = headers
        self._respond(error.status, [JSON], error.envelope(self._who.request_id).model_dump_json().encode())

    async def _stream(self, told: Told, write_timeout_s: float) -> None:
        exchange = self._exchange
        self._status = 200
        exchange.start(200, [*EVENTS, *self._headers()], None)
        exchange.send(told.body)
        if told.rest is not None:
            async with aclosing(told.rest) as rest:
                async for events in rest:
                    if self._ready is not None and not await self._taken(self._ready, write_timeout_s):
                        exchange.cut()
                        return
                    exchange.send(events)
        exchange.finish()

    async def _taken(self, ready: asyncio.Event, write_timeout_s: float) -> bool:
        """Wait until the caller has taken what was written for it. False: it does not read its stream."""
        try:
            async with asyncio.timeout(write_timeout_s):
                await ready.wait()
        except TimeoutError:
            log.warning("the caller does not read its stream", timeout_s=write_timeout_s)
            return False
        self._ready = None
        return True
