"""A small HTTP/1.1 client for the hops that carry the most requests: pooled connections, bytes in and out.

It does what `services.http.PeerClient` does for everything else, at about a tenth of the cost a call; the
measurement is in `docs/adr/0009-http-client-of-the-hot-hop.md`. No redirects, no compression, no cookies.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self, cast
from urllib.parse import urlsplit

import httptools

BUFFER_BYTES_MAX: Final = 1024 * 1024
"""An exchange that nobody reads stops reading from its socket here."""

IDLE_S_MAX: Final = 30.0
"""Shorter than our servers keep an idle connection, so that we never write into one that is closing."""

Headers = Sequence[tuple[bytes, bytes]]


class NotConnected(OSError):
    """No connection could be made: nothing was sent."""


class BrokenOff(OSError):
    """The connection ended before the answer did: the request may have been served."""


class _Connection(asyncio.Protocol):
    """One socket, one exchange at a time. The methods named `on_…` are httptools' callbacks."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._parser = httptools.HttpResponseParser(self)
        self.idle_since = 0.0
        self.reusable = True

    def start(self, exchange: "Exchange", head: bytes, body: bytes) -> None:
        assert self._transport is not None
        self._exchange = exchange
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(head + body if len(body) < BUFFER_BYTES_MAX else head)
        if len(body) >= BUFFER_BYTES_MAX:
            self._transport.write(body)

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        if not self.closed:
            self._transport.pause_reading()  # type: ignore[union-attr]  # `closed` looked

    def resume(self) -> None:
        if not self.closed:
            self._transport.resume_reading()  # type: ignore[union-attr]  # `closed` looked

    # --- asyncio ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:  # bytes that nobody asked for: a server that cannot be trusted
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(BrokenOff(f"the answer is not HTTP: {error}"))
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._fail(BrokenOff(str(error) if error else "the connection was closed before the answer ended"))

    def _fail(self, error: BrokenOff) -> None:
        self.reusable = False
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.failed(error)

    # --- httptools --------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._exchange is not None:
            self._exchange.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._exchange is not None:
            self._exchange.head_arrived(self._parser.get_status_code())

    def on_body(self, data: bytes) -> None:
        if self._exchange is not None:
            self._exchange.body_arrived(data)

    def on_message_complete(self) -> None:
        exchange, self._exchange = self._exchange, None
        self.reusable = self._parser.should_keep_alive()
        if exchange is not None:
            exchange.finished()


class Exchange:
    """A request that was sent, and its answer as it arrives. Read it to its end or `close` it."""

    def __init__(self, client: "H1Client", connection: _Connection) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._client = client
        self._connection = connection
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._done = False
        self._error: BrokenOff | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Callable[[bytes], None] | None = None

    def head_arrived(self, status: int) -> None:
        self.status = status
        self._wake()

    def body_arrived(self, data: bytes) -> None:
        if self._sink is not None:
            self._sink(data)
            return
        self._chunks.append(data)
        self._buffered += len(data)
        if self._buffered > BUFFER_BYTES_MAX:
            self._connection.pause()
        self._wake()

    def finished(self) -> None:
        self._done = True
        self._client.give_back(self._connection)
        self._wake()

    def failed(self, error: BrokenOff) -> None:
        self._error = error
        self._done = True
        self._client.give_back(self._connection)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _arrival(self) -> None:
        self._waiter = self._client.loop.create_future()
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
        if self._buffered > BUFFER_BYTES_MAX:
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
        if not self._done:
            self._connection.close()


class H1Client:
    """Connections to one server: as many as there are exchanges at once, up to a limit the caller keeps."""

    def __init__(self, base_url: str, *, connect_timeout_s: float) -> None:
        url = urlsplit(base_url)
        self.base_url = base_url
        self._host = url.hostname or ""
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._path = url.path.rstrip("/").encode()
        self._ssl = ssl.create_default_context() if url.scheme == "https" else None
        self._host_header = url.netloc.rpartition("@")[2].encode()
        self._connect_timeout_s = connect_timeout_s
        self.loop = asyncio.get_running_loop()  # kept: asking for it costs a system call on Python 3.11
        self._idle: deque[_Connection] = deque()
        self._open: set[_Connection] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for connection in list(self._open):
            connection.close()
        self._open.clear()
        self._idle.clear()

    def give_back(self, connection: _Connection) -> None:
        """Called by an exchange that ended."""
        if connection.reusable and not connection.closed:
            connection.idle_since = self.loop.time()
            self._idle.append(connection)
        else:
            self._open.discard(connection)
            connection.close()

    def _reused(self) -> _Connection | None:
        now = self.loop.time()
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and now - connection.idle_since < IDLE_S_MAX:
                return connection
            self._open.discard(connection)
            connection.close()
        return None

    async def _connect(self) -> _Connection:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await self.loop.create_connection(
                    _Connection, self._host, self._port, ssl=self._ssl
                )
        except (OSError, TimeoutError) as error:
            raise NotConnected(f"no connection to {self.base_url}: {str(error) or 'timed out'}") from error
        self._open.add(connection)
        return connection

    async def send(self, method: bytes, target: bytes, headers: Headers, body: bytes = b"") -> Exchange:
        """Send a request. Raises `NotConnected`."""
        connection = self._reused() or await self._connect()
        exchange = Exchange(self, connection)
        lines = [method, b" ", self._path, target, b" HTTP/1.1\r\nhost: ", self._host_header, b"\r\n"]
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        lines += (b"content-length: ", str(len(body)).encode(), b"\r\n\r\n")
        connection.start(exchange, b"".join(lines), body)
        return exchange
