"""Server-sent events: how a stream of chunks is written, and how it ends."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Final

import structlog
from fastapi import Response
from starlette.types import Receive, Scope, Send

from schemas.chat import ChatChunk
from services import context
from services.disconnect import ClientGone, while_connected
from services.errors import PlatformError

log = structlog.get_logger(__name__)

DONE: Final = b"data: [DONE]\n\n"


class EventStream(Response):
    """Chunks as server-sent events: `data:` lines alone, `[DONE]` after a clean end, one error otherwise."""

    media_type = "text/event-stream"

    def __init__(
        self,
        first: ChatChunk,
        rest: AsyncGenerator[ChatChunk, None],
        headers: dict[str, str],
        *,
        write_timeout_s: float,
    ) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no", **headers})
        del self.headers["content-length"]
        self._first = first
        self._rest = rest
        self._write_timeout_s = write_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        async def write(event: bytes, *, more: bool = True) -> None:
            try:
                async with asyncio.timeout(self._write_timeout_s):
                    await send({"type": "http.response.body", "body": event, "more_body": more})
            except TimeoutError:
                log.warning("the caller does not read its stream", timeout_s=self._write_timeout_s)
                raise ClientGone("the caller does not read its stream") from None

        with contextlib.suppress(ClientGone):
            async with contextlib.aclosing(self._rest), while_connected(receive):
                await send(
                    {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                )
                await write(_event(self._first))
                try:
                    async for chunk in self._rest:
                        await write(_event(chunk))
                except ClientGone:
                    raise
                except PlatformError as error:
                    log.warning("stream failed", code=error.code)
                    await write(_error_event(error), more=False)
                else:
                    await write(DONE, more=False)


def _event(chunk: ChatChunk) -> bytes:
    return b"data: %b\n\n" % chunk.model_dump_json(exclude_unset=True).encode()


def _error_event(error: PlatformError) -> bytes:
    request = context.current()
    envelope = error.envelope(request.request_id if request else None)
    return b"data: %b\n\n" % envelope.model_dump_json().encode()
