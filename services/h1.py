"""A small HTTP/1.1 client for the hops that carry the most requests: pooled connections, bytes in and out.

It does what `services.http.PeerClient` does for everything else, at about a tenth of the cost a call; the
measurement is in `docs/adr/0009-http-client-of-the-hot-hop.md`. No redirects, no compression, no cookies. An
answer must say how long it is, or come in chunks: one that ends with the connection counts as broken off.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Protocol, Self, cast
from urllib.parse import urlsplit

import httptools

BUFFER_BYTES_MAX: Final = 1024 * 1024
"""An exchange that nobody reads stops reading from its socket here."""

IDLE_S_MAX: Final = 30.0
"""Shorter than our servers keep an idle connection, so that we never write into one that is closing."""

HEAD_BYTES_MAX: Final = 64 * 1024
"""Status line and headers of an answer together."""

INTERIM_END: Final = 200
"""Statuses below it announce an answer and are none."""

STATUS_END: Final = 600

Headers = Sequence[tuple[bytes, bytes]]


class NotConnected(OSError):
    """No connection could be made: nothing was sent."""


class BrokenOff(OSError):
    """The connection ended before the answer did: the request may have been served."""


class Receiver(Protocol):
    """Told of an answer as it arrives: head, pieces, and once that it ended or that it broke off."""

    def head_arrived(self, status: int, headers: list[tuple[bytes, bytes]]) -> None: ...

    def body_arrived(self, data: bytes) -> None: ...

    def finished(self) -> None: ...

    def failed(self, error: BrokenOff) -> None: ...


class Connection(asyncio.Protocol):
    """One socket, one exchange at a time. The methods named `on_…` are httptools' callbacks.

    Who was given it by `H1Client.start` may hold it up, or close it, until its receiver was told the end.
    """

    def __init__(self, client: "H1Client") -> None:
        self._client = client
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._in_head = True
        self._interim = False
        self._complete = False
        self._reusable = False
        self._paused = False
        self.idle_since = 0.0

    def start(self, receiver: Receiver, head: bytes, body: bytes) -> None:
        assert self._transport is not None
        self._receiver = receiver
        self._parser = httptools.HttpResponseParser(self)
        self._headers = []
        self._head_bytes = 0
        self._in_head, self._complete = True, False
        if len(body) < BUFFER_BYTES_MAX:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def close(self) -> None:
        """Cut it off. A receiver that was not told the end is told that the answer broke off."""
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Let the rest of the answer wait in the socket. What was read already is still told."""
        if not self._paused and not self.closed:
            self._paused = True
            self._transport.pause_reading()  # type: ignore[union-attr]  # `closed` looked

    def resume(self) -> None:
        if self._paused and not self.closed:
            self._paused = False
            self._transport.resume_reading()  # type: ignore[union-attr]  # `closed` looked

    # --- asyncio ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class

    def data_received(self, data: bytes) -> None:
        if self._receiver is None:  # bytes that nobody asked for: a server that cannot be trusted
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"the answer is not HTTP: {error}")
            return
        if self._complete:
            self._finish()
        elif self._in_head:  # still: all of this was head
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._fail(f"the head of the answer is larger than {HEAD_BYTES_MAX} bytes")

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._fail(str(error) if error else "the connection was closed before the answer ended")

    def _finish(self) -> None:
        """The answer is whole. Not told by the parser itself, since a new exchange may begin in here."""
        receiver, self._receiver = self._receiver, None
        if self._reusable:
            self.resume()
            self._client.give_back(self)
        else:
            self._client.drop(self)
        if receiver is not None:
            receiver.finished()

    def _fail(self, reason: str) -> None:
        receiver, self._receiver = self._receiver, None
        self._client.drop(self)
        if receiver is not None:
            receiver.failed(BrokenOff(reason))

    # --- httptools --------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:
            raise ValueError("more than one answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        self._interim = status < INTERIM_END
        if self._interim:  # says only that the answer will come
            self._headers = []
        elif status >= STATUS_END:
            raise ValueError(f"{status} is no status")
        elif self._receiver is not None:
            self._in_head = False
            self._receiver.head_arrived(status, self._headers)

    def on_body(self, data: bytes) -> None:
        if self._receiver is not None:
            self._receiver.body_arrived(data)

    def on_message_complete(self) -> None:
        self._complete = not self._interim
        self._reusable = self._parser.should_keep_alive()  # the parser forgets it when the next one begins


class Exchange:
    """A request that was sent, and its answer as it arrives. Read it to its end or `close` it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._loop = loop
        self._connection: Connection | None = None
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._done = False
        self._error: BrokenOff | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Callable[[bytes], None] | None = None

    def sent(self, connection: Connection) -> None:
        self._connection = connection

    def head_arrived(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.headers = headers
        self._wake()

    def body_arrived(self, data: bytes) -> None:
        if self._sink is not None:
            self._sink(data)
            return
        self._chunks.append(data)
        self._buffered += len(data)
        if self._buffered > BUFFER_BYTES_MAX and self._connection is not None:
            self._connection.pause()
        self._wake()

    def finished(self) -> None:
        self._done = True
        self._connection = None
        self._wake()

    def failed(self, error: BrokenOff) -> None:
        self._error = error
        self._done = True
        self._connection = None
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _arrival(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def head(self) -> int:
        """The status, once it is there. Raises `BrokenOff`."""
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._arrival()
        return self.status

    async def read(self) -> bytes:
        """What has arrived, at least one byte; empty at the end. Raises `BrokenOff`."""
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._done:
                return b""
            await self._arrival()
        return b"".join(self._taken())

    def _taken(self) -> list[bytes]:
        """What has arrived and was not read; the socket is read on if it was held up."""
        chunks = list(self._chunks)
        self._chunks.clear()
        if self._connection is not None:
            self._connection.resume()
        self._buffered = 0
        return chunks

    async def drain_into(self, sink: Callable[[bytes], None]) -> None:
        """Call `sink` with what arrives, in the moment it does, until the end. Raises `BrokenOff`."""
        self._sink = sink
        for data in self._taken():
            sink(data)
        while not self._done:
            await self._arrival()
        if self._error is not None:
            raise self._error

    async def body(self, *, bytes_max: int) -> bytes:
        """The whole body. Raises `BrokenOff`, also when it is larger than `bytes_max`."""
        parts: list[bytes] = []
        size = 0
        while data := await self.read():
            size += len(data)
            if size > bytes_max:
                self.close()
                raise BrokenOff(f"the answer has more than {bytes_max} bytes")
            parts.append(data)
        return b"".join(parts)

    def close(self) -> None:
        """Give up on what has not arrived yet. The connection goes with it."""
        if self._connection is not None:
            self._connection.close()


class H1Client:
    """Connections to one server: as many as there are exchanges at once, up to a limit the caller keeps.

    `headers` go with every request, first of all.
    """

    def __init__(
        self, base_url: str, *, connect_timeout_s: float, headers: Mapping[str, str] | None = None
    ) -> None:
        url = urlsplit(base_url)
        self.base_url = base_url
        self._host = url.hostname or ""
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._path = url.path.rstrip("/").encode()
        self._ssl = ssl.create_default_context() if url.scheme == "https" else None
        lines = {"host": url.netloc.rpartition("@")[2], **(headers or {})}
        self._standing = "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode()
        self._connect_timeout_s = connect_timeout_s
        self.loop = asyncio.get_running_loop()  # kept: asking for it costs a system call on Python 3.11
        self._idle: deque[Connection] = deque()
        self._open: set[Connection] = set()
        self._connecting: set[asyncio.Timeout] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cut off all connections, those that are being made as well. New ones may be made afterwards."""
        for connection in list(self._open):
            connection.close()
        self._open.clear()
        self._idle.clear()
        for deadline in self._connecting:
            if not deadline.expired():
                deadline.reschedule(self.loop.time())

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next request. Those that nobody needed for a while are closed."""
        now = self.loop.time()
        while self._idle and (self._idle[0].closed or now - self._idle[0].idle_since >= IDLE_S_MAX):
            self.drop(self._idle.popleft())
        if connection.closed:
            self._open.discard(connection)
        else:
            connection.idle_since = now
            self._idle.append(connection)

    def drop(self, connection: Connection) -> None:
        """Close a connection that is good for nothing any more."""
        self._open.discard(connection)
        connection.close()

    def _reused(self) -> Connection | None:
        now = self.loop.time()
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and now - connection.idle_since < IDLE_S_MAX:
                return connection
            self.drop(connection)
        return None

    async def _connect(self) -> Connection:
        deadline = asyncio.timeout(self._connect_timeout_s)
        try:
            async with deadline:
                self._connecting.add(deadline)
                _, connection = await self.loop.create_connection(
                    lambda: Connection(self), self._host, self._port, ssl=self._ssl
                )
        except (OSError, TimeoutError) as error:
            raise NotConnected(f"no connection to {self.base_url}: {str(error) or 'timed out'}") from error
        finally:
            self._connecting.discard(deadline)
        self._open.add(connection)
        return connection

    def _head(self, method: bytes, target: bytes, headers: Headers, length: int) -> bytes:
        lines = [method, b" ", self._path, target, b" HTTP/1.1\r\n", self._standing]
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        lines.append(b"content-length: %d\r\n\r\n" % length)
        return b"".join(lines)

    def start(
        self, method: bytes, target: bytes, headers: Headers, body: bytes, receiver: Receiver
    ) -> Connection | None:
        """Send a request at once, over a connection that is idle. None, and nothing sent, if there is none.

        The receiver is told nothing before this returns.
        """
        connection = self._reused()
        if connection is not None:
            connection.start(receiver, self._head(method, target, headers, len(body)), body)
        return connection

    async def send(self, method: bytes, target: bytes, headers: Headers, body: bytes = b"") -> Exchange:
        """Send a request. Raises `NotConnected`."""
        connection = self._reused() or await self._connect()
        exchange = Exchange(self.loop)
        exchange.sent(connection)
        connection.start(exchange, self._head(method, target, headers, len(body)), body)
        return exchange
