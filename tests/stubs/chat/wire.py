"""A server on a real socket that sends exactly what a test tells it to, and keeps what it was asked."""

import asyncio
import contextlib
import gzip
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import orjson

from tests.stubs.listener import Listener

End = Literal["length", "chunked", "close", "reset", "hang"]
PATIENCE_S = 30.0


@dataclass(frozen=True)
class Reply:
    """An answer: its head, its body in pieces, and how it ends.

    `length` and `chunked` end well; `close` and `reset` end the connection, `hang` never ends. With `head`
    False not even a status is sent.
    """

    pieces: Sequence[bytes] = ()
    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)
    end: End = "length"
    head: bool = True
    pause_s: float = 0.0

    def packed(self) -> "Reply":
        body = gzip.compress(b"".join(self.pieces))
        return Reply(
            [body[:11], body[11:]], self.status, (*self.headers, ("content-encoding", "gzip")), self.end
        )


@dataclass(frozen=True)
class Asked:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> dict[str, Any]:
        said: dict[str, Any] = orjson.loads(self.body)
        return said


@dataclass
class WireServer:
    """Plays its replies, one a request. `open` counts the connections there are.

    With `listed`, that is the answer to every GET, and the replies are for the rest.
    """

    replies: deque[Reply] = field(default_factory=deque)
    listed: Reply | None = None
    asked: list[Asked] = field(default_factory=list)
    port: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._listener = Listener(self._exchange, changed=self.changed.set)

    @property
    def connections(self) -> int:
        return self._listener.taken

    @property
    def open(self) -> int:
        return self._listener.open

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self.port = await self._listener.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._listener.stop()

    async def until(self, open_: int) -> None:
        """Wait until so many connections are there."""
        async with asyncio.timeout(PATIENCE_S):
            while self.open != open_:
                self.changed.clear()
                await self.changed.wait()

    async def until_taken(self) -> None:
        """Wait until every reply there is has been asked for."""
        async with asyncio.timeout(PATIENCE_S):
            while self.replies:
                self.changed.clear()
                await self.changed.wait()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int
    ) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.asked.append(Asked(method, target, headers, body, connection))
        reply = self.listed if method == "GET" and self.listed is not None else self.replies.popleft()
        self.changed.set()
        sending = asyncio.ensure_future(self._send(writer, reply))
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait([sending, gone], return_when=asyncio.FIRST_COMPLETED)
            return sending.done() and sending.result()
        finally:
            sending.cancel()
            gone.cancel()
            await asyncio.wait([sending, gone])

    async def _send(self, writer: asyncio.StreamWriter, reply: Reply) -> bool:
        chunked = reply.end == "chunked" or (reply.end == "hang" and reply.head)
        if reply.head:
            lines = [f"HTTP/1.1 {reply.status} X", *(f"{name}: {value}" for name, value in reply.headers)]
            if reply.end == "length":
                lines.append(f"content-length: {sum(map(len, reply.pieces))}")
            elif chunked or reply.end == "reset":
                lines.append("transfer-encoding: chunked")
            writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
            for piece in reply.pieces:
                framed = chunked or reply.end == "reset"
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if framed else piece)
                await writer.drain()
                await asyncio.sleep(reply.pause_s)
        if reply.end == "hang":
            await asyncio.Event().wait()
        if reply.end == "chunked":
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        if reply.end == "reset":
            await asyncio.sleep(0)
            writer.transport.abort()
        return reply.end in ("length", "chunked")


@contextlib.asynccontextmanager
async def serving(*replies: Reply) -> AsyncIterator[WireServer]:
    async with WireServer(deque(replies)) as server:
        yield server


def cut_up(content: bytes, size: int = 7) -> list[bytes]:
    """A stream cut where it hurts: inside characters, lines and events."""
    return [content[start : start + size] for start in range(0, len(content), size)]
