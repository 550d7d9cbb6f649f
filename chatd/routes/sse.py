"""Server-sent events on the ordinary way: written as they come, given up when their caller leaves."""

import asyncio
import contextlib

import structlog
from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from chatd.engine.surfaces import Surface
from chatd.routes.conversation import STREAM_HEADERS, Told, conversation
from chatd.routes.parts import naming
from schemas.chat import ChatRequest
from services.disconnect import ClientGone, while_connected

log = structlog.get_logger(__name__)


async def reply(body: ChatRequest, surface: Surface, request: Request) -> Response:
    """The answer to one request, in the words of its surface."""
    state = request.state
    talk = conversation(body, surface, request.scope)
    with naming(lambda: talk.headers):
        async with while_connected(request.receive):
            told = await talk.answer(state.dispatcher, state.gate)
    if body.stream:
        return EventStream(told, talk.headers, write_timeout_s=state.settings.write_timeout_s)
    return Response(told.body, media_type="application/json", headers=talk.headers)


class EventStream(Response):
    """A stream that has begun."""

    media_type = "text/event-stream"

    def __init__(self, told: Told, headers: dict[str, str], *, write_timeout_s: float) -> None:
        super().__init__(headers={**STREAM_HEADERS, **headers})
        del self.headers["content-length"]
        self._told = told
        self._write_timeout_s = write_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        async def write(events: bytes, *, more: bool = True) -> None:
            try:
                async with asyncio.timeout(self._write_timeout_s):
                    await send({"type": "http.response.body", "body": events, "more_body": more})
            except TimeoutError:
                log.warning("the caller does not read its stream", timeout_s=self._write_timeout_s)
                raise ClientGone("the caller does not read its stream") from None

        rest = self._told.rest
        with contextlib.suppress(ClientGone):
            async with contextlib.AsyncExitStack() as stack:
                if rest is not None:
                    await stack.enter_async_context(contextlib.aclosing(rest))
                await stack.enter_async_context(while_connected(receive))
                await send(
                    {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                )
                await write(self._told.body)
                if rest is not None:
                    async for events in rest:
                        await write(events)
                await write(b"", more=False)
