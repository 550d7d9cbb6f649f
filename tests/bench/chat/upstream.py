"""A provider of OpenAI's API that answers at once, and a distill that takes every record, in one process.

Written on the bare parser, so that what is measured is between it and the caller. `UPSTREAM_PORT` is its
port. The model `paced` answers streams with `TOKENS` tokens at `RATE` a second, the first at once. Each says
its number, and the nanoseconds of the monotonic clock when it was sent: all processes share that.
"""

import asyncio
import os
import time
from typing import Final, cast

import httptools
import orjson
import uvloop

TOKENS: Final = 200
RATE: Final = 50.0
EVENTS: Final = 20
"""Of a stream that is not paced."""

HEAD: Final = b"HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\ncontent-type: "
USAGE: Final = b'{"prompt_tokens":12,"completion_tokens":9,"total_tokens":21}'
ANSWER: Final = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1767225600,"model":"instant","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"The forklift shift in Dayton is filled.","refusal":null},'
    b'"logprobs":null,"finish_reason":"stop"}],"usage":%b}' % USAGE
)
EVENT: Final = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1767225600,"model":"instant",'
    b'"choices":[{"index":0,"delta":{"content":"%b"},"logprobs":null,"finish_reason":null}]}\n\n'
)
LAST: Final = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1767225600,"model":"instant",'
    b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\n'
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1767225600,"model":"instant",'
    b'"choices":[],"usage":%b}\n\ndata: [DONE]\n\n' % USAGE
)
MODELS: Final = b'{"object":"list","data":[{"id":"instant"},{"id":"paced"}]}'
STREAM: Final = HEAD + b"text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def whole(body: bytes) -> bytes:
    return HEAD + b"application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


GOOD: Final = whole(ANSWER)
INSTANT_STREAM: Final = STREAM + chunk(EVENT % b"word ") * EVENTS + chunk(LAST) + b"0\r\n\r\n"


class Upstream(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._path = b""
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path = url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        assert self._transport is not None
        body = b"".join(self._body)
        self._body.clear()
        if self._path.endswith(b"/chat/completions"):
            self._chat(body)
        elif self._path == b"/v1/runs":
            accepted = {"accepted": body.count(b"\n"), "rejected": [], "durability": "fsync"}
            self._transport.write(whole(orjson.dumps(accepted)))
        elif self._path.endswith(b"/models"):
            self._transport.write(whole(MODELS))
        else:
            self._transport.write(whole(b'{"status":"ok"}'))

    def _chat(self, body: bytes) -> None:
        assert self._transport is not None
        if b'"stream":true' not in body and b'"stream": true' not in body:
            self._transport.write(GOOD)
        elif b'"paced"' in body:
            self._transport.write(STREAM)
            self._token(0, self._loop.time())
        else:
            self._transport.write(INSTANT_STREAM)

    def _token(self, number: int, started: float) -> None:
        assert self._transport is not None
        if self._transport.is_closing():
            return
        if number == TOKENS:
            self._transport.write(chunk(LAST) + b"0\r\n\r\n")
            return
        self._transport.write(chunk(EVENT % b"%d:%d " % (number, time.monotonic_ns())))
        self._loop.call_at(started + (number + 1) / RATE, self._token, number + 1, started)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(os.environ["UPSTREAM_PORT"])))
