"""Stands for any daemon: answers every POST at once with the same few bytes, or with a stream of events.

Written on the bare parser, so that what is measured through the gateway is the gateway. `INSTANT_PORT` is its
port. A path that ends in `/stream` gets `EVENTS` events in chunks, as chatd sends them.
"""

import asyncio
import os
from typing import Final, cast

import httptools
import uvloop

ANSWER: Final = b'{"ok":true,"verdict":"accepted","findings":[],"note":"%b"}' % (b"x" * 300)
EVENTS: Final = 20
EVENT: Final = b'data: {"choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}\n\n'

HEAD: Final = b"HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\ncontent-type: "
HEALTHY: Final = HEAD + b'application/json\r\ncontent-length: 15\r\n\r\n{"status":"ok"}'
WHOLE: Final = HEAD + b"application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
STREAMED: Final = HEAD + b"text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNK: Final = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)


class Instant(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._path = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path = url

    def on_message_complete(self) -> None:
        assert self._transport is not None
        if self._path == b"/healthz":
            self._transport.write(HEALTHY)
        elif self._path.endswith(b"/stream/search"):
            self._transport.write(STREAMED)
            for _ in range(EVENTS):
                self._transport.write(CHUNK)
            self._transport.write(b"0\r\n\r\n")
        else:
            self._transport.write(WHOLE)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Instant, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(os.environ["INSTANT_PORT"])))
