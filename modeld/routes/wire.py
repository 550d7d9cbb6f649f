"""How Ollama's HTTP differs from ours: its errors, its lines, and how a stream of them ends."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.errors import ErrorBody, ErrorEnvelope
from services.errors import InvalidRequest

NOT_OLLAMAS: Final = frozenset({"unknown_route", "method_not_allowed"})


class Failure(BaseModel):
    """A failure in Ollama's form; in the envelope where Ollama has no such failure."""

    error: str | ErrorBody


class OllamaWire:
    """Makes `/api/*` speak as Ollama does.

    A body is JSON whatever its content type says, since `curl -d` says that it is a form; and an error is
    `{"error": "text"}`, with the status and headers that it has anyway. Routes that do not exist and
    methods that are not allowed stay in our own envelope, as everything outside of `/api/` does.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/api/"):
            await self._app(scope, receive, send)
            return
        kept = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
        scope = {**scope, "headers": [*kept, (b"content-type", b"application/json")]}
        await self._app(scope, receive, _Translator(send))


class _Translator:
    """Holds back a failure until its body is complete, then sends it in Ollama's shape."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._start = message
        elif self._start is None:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._finish(self._start)

    async def _finish(self, start: Message) -> None:
        body = _translate(self._body)
        kept = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
        headers = [*kept, (b"content-length", str(len(body)).encode())]
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def _translate(body: bytes) -> bytes:
    try:
        error = ErrorEnvelope.model_validate_json(body).error
    except ValidationError:  # an answer to HEAD, for instance
        return body
    return body if error.code in NOT_OLLAMAS else orjson.dumps({"error": error.message})


async def body_present(request: Request) -> None:
    """Refuse an empty body in Ollama's words, before anybody tries to parse it."""
    if request.method == "POST" and not await request.body():
        raise InvalidRequest("missing request body")


def line(value: Mapping[str, Any]) -> bytes:
    """One NDJSON line, in ASCII: clients that split text into lines would cut at U+2028 and its kin."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode() + b"\n"


class NdjsonResponse(StreamingResponse):
    """A stream of lines. `closed` is called at its end in every case, a client that left included."""

    media_type = "application/x-ndjson"

    def __init__(self, lines: AsyncIterator[bytes], *, closed: Callable[[], None]) -> None:
        super().__init__(lines)
        self._closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._closed()
