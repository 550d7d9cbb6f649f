"""What comes in that is no HTTP, or too much of it, over a real socket."""

import asyncio

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from schemas.errors import ErrorEnvelope
from services.protocol import EnvelopeProtocol

pytestmark = [pytest.mark.anyio, pytest.mark.enable_socket]

HEAD = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"


async def served(scope: Scope, receive: Receive, send: Send) -> None:
    await Request(scope, receive).body()
    await PlainTextResponse("served")(scope, receive, send)


async def answer_to(data: bytes) -> bytes:
    config = uvicorn.Config(served, lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: EnvelopeProtocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for start in range(0, len(data), 8192):  # as it would come over a network
            writer.write(data[start : start + 8192])
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
    return answer


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"HELLO\r\n\r\n", "invalid_http"),
        (b"BREW / HTTP/1.1\r\nhost: x\r\n\r\n", "invalid_http"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: many\r\n\r\n", "invalid_http"),
        (HEAD + b"x: " + b"a" * 70_000, "head_too_large"),
        (b"GET /" + b"a" * 70_000, "head_too_large"),
    ],
)
async def test_what_is_no_http_is_refused_in_the_envelope(data: bytes, code: str) -> None:
    head, _, body = (await answer_to(data)).partition(b"\r\n\r\n")
    error = ErrorEnvelope.model_validate_json(body).error
    assert head.startswith(b"HTTP/1.1 400 ")
    assert (error.type, error.code) == ("invalid_request_error", code)
    assert f"x-request-id: {error.request_id}".encode() in head


async def test_a_large_body_does_not_count_as_head() -> None:
    data = HEAD + b"content-length: 200000\r\n\r\n" + b"a" * 200_000
    assert (await answer_to(data)).endswith(b"served")
