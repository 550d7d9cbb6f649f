"""One provider's server: requests with its key, answers read within bounds, its faults as our errors."""

import asyncio
import base64
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from chatd.backends.failures import invalid, too_long
from services import context
from services.context import REQUEST_ID_HEADER, TRACEPARENT_HEADER
from services.errors import Unavailable, UpstreamError, UpstreamTimeout
from services.h1 import BrokenOff, Exchange, H1Client, NotConnected

Header = tuple[bytes, bytes]

JSON: Final[Sequence[Header]] = ((b"content-type", b"application/json"), (b"accept-encoding", b"identity"))
PLAIN: Final[Sequence[Header]] = ((b"accept-encoding", b"identity"),)
GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS
FRAMING: Final = 8
"""An answer may be so many times its text: each token of a stream is framed, and may have probabilities."""

SETTLE_S: Final = 1.0
"""How long a connection may take to end an answer that has said all it has to say."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """`connect_s` to connect, `short_s` for a call that asks no model; bytes of a line, and of an answer's
    text, which what comes may exceed by `FRAMING`.
    """

    connect_s: float = 2.0
    short_s: float = 30.0
    line_bytes_max: int = 1024 * 1024
    answer_bytes_max: int = 4 * 1024 * 1024


class Answer:
    """What came back: its head, and its body as it arrives.

    Whoever has read the end of what was said, though perhaps not of the body, sets `said_all`: the connection
    is kept then if the rest comes soon.
    """

    def __init__(self, provider: str, exchange: Exchange, bounds: Bounds) -> None:
        self.status = exchange.status
        self.headers: Mapping[str, str] = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in exchange.headers
        }
        self.said_all = False
        self._provider = provider
        self._exchange = exchange
        self._bounds = bounds
        self._ends_with_connection = not self.headers.keys() & {"content-length", "transfer-encoding"}

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300

    async def body(self) -> bytes:
        """The whole body, unpacked."""
        return b"".join([piece async for piece in self._pieces("answer")])

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """The lines of a stream, cut at the line feed alone: text splitters also cut inside JSON strings."""
        pending = b""
        line_max = self._bounds.line_bytes_max
        async with aclosing(self._pieces("stream")) as pieces:
            async for piece in pieces:
                *whole, pending = (pending + piece).split(b"\n")
                if len(pending) > line_max or any(len(line) > line_max for line in whole):
                    raise too_long(self._provider, "line", line_max)
                for line in whole:
                    yield line
        if pending:
            yield pending

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The data of each server-sent event. Other fields and comments are skipped.

        The last event counts without the blank line too, as some servers leave that out.
        """
        data: list[bytes] = []
        async with aclosing(self.lines()) as lines:
            async for raw in lines:
                line = raw.removesuffix(b"\r")
                if line.startswith(b"data:"):
                    data.append(line[5:].removeprefix(b" "))
                elif not line:
                    if any(data):
                        yield b"\n".join(data)
                    data = []
        if any(data):
            yield b"\n".join(data)

    async def _pieces(self, what: str) -> AsyncGenerator[bytes, None]:
        unpacked = self._unpacked()
        size, size_max = 0, self._bounds.answer_bytes_max * FRAMING
        async with aclosing(unpacked):
            async for piece in unpacked:
                size += len(piece)
                if size > size_max:
                    raise too_long(self._provider, what, size_max)
                yield piece

    async def _unpacked(self) -> AsyncGenerator[bytes, None]:
        """The body without its compression, which we never ask for and some servers use all the same."""
        packing = self.headers.get("content-encoding", "identity").strip().lower()
        if packing in ("identity", ""):
            while piece := await self._read():
                yield piece
            return
        if packing not in ("gzip", "x-gzip", "deflate"):
            raise invalid(self._provider, f"an answer packed as {packing[:32]!r}, which was not asked for")
        unpacker = zlib.decompressobj(GZIP_OR_ZLIB)
        while packed := await self._read():
            try:
                while packed:
                    if out := unpacker.decompress(packed, self._bounds.line_bytes_max):
                        yield out
                    packed = unpacker.unconsumed_tail
            except zlib.error:
                raise invalid(self._provider, f"an answer that is not {packing}") from None
        if rest := unpacker.flush():
            yield rest
        if not unpacker.eof:
            raise UpstreamError(f"the packed answer of {self._provider} broke off", code="upstream_broken")

    async def _read(self) -> bytes:
        try:
            return await self._exchange.read()
        except BrokenOff as error:
            if self._ends_with_connection:  # this is how such an answer ends, whole or not
                return b""
            raise _broken(self._provider, error) from error


class Upstream:
    """A server, and the keys it may be called with: each a header, or several.

    It is told the request's id, and never who our caller is.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        keys: Sequence[Sequence[Header]] = (),
        headers: Sequence[Header] = (),
        bounds: Bounds | None = None,
    ) -> None:
        self.name = name
        self.bounds = bounds or Bounds()
        self._client = H1Client(base_url, connect_timeout_s=self.bounds.connect_s)
        self._shown = _without_password(base_url)
        self._keys: Sequence[Sequence[Header]] = keys or (_basic(base_url),)
        self._headers = tuple(headers)
        self._under_way = 0
        self._retired = False

    @property
    def keys(self) -> int:
        return len(self._keys)

    @property
    def base_url(self) -> str:
        """Without user and password."""
        return self._shown

    def retire(self) -> None:
        """Keep no connections from now on."""
        self._retired = True
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._retired and not self._under_way:
            self._client.close()

    @asynccontextmanager
    async def post(
        self, target: str, body: bytes, *, key: int = 0, headers: Sequence[Header] = ()
    ) -> AsyncIterator[Answer]:
        """A call whose answer is read in the block; leaving it early closes the connection.

        Raises `Unavailable` when nothing could be sent, and `UpstreamError` when the connection broke.
        No clock but the one to connect runs: the dispatcher's do.
        """
        async with self._call(b"POST", target, (*JSON, *headers), body, key) as answer:
            yield answer

    async def get(self, target: str, *, headers: Sequence[Header] = ()) -> tuple[Answer, bytes]:
        """A short call, with its whole body. Raises `UpstreamTimeout` too."""
        try:
            async with (
                asyncio.timeout(self.bounds.short_s),
                self._call(b"GET", target, (*PLAIN, *headers), b"", 0) as answer,
            ):
                return answer, await answer.body()
        except TimeoutError:
            raise UpstreamTimeout(f"{self.name} did not answer within {self.bounds.short_s:g} s") from None

    @asynccontextmanager
    async def _call(
        self, method: bytes, target: str, headers: Sequence[Header], body: bytes, key: int
    ) -> AsyncIterator[Answer]:
        sent = (*headers, *self._keys[key], *self._headers, *_identity())
        self._under_way += 1
        exchange: Exchange | None = None
        answer: Answer | None = None
        try:
            try:
                exchange = await self._client.send(method, target.encode("ascii"), sent, body)
                await exchange.head()
            except NotConnected as error:
                raise Unavailable(
                    f"{self.name} does not answer at {self._shown}", code=f"{self.name}_down"
                ) from error
            except BrokenOff as error:
                raise _broken(self.name, error) from error
            answer = Answer(self.name, exchange, self.bounds)
            yield answer
        finally:
            if answer is not None and answer.said_all:
                self._client.loop.call_later(SETTLE_S, exchange.close)  # type: ignore[union-attr]  # answered
            elif exchange is not None:
                exchange.close()
            self._under_way -= 1
            self._close_if_idle()


def _identity() -> list[Header]:
    """What lets an operator find a call on both sides. Never who asked."""
    request = context.current()
    if request is None:
        return []
    return [
        (REQUEST_ID_HEADER.encode(), request.request_id.encode()),
        (TRACEPARENT_HEADER.encode(), request.traceparent.encode()),
    ]


def _broken(provider: str, error: BrokenOff) -> UpstreamError:
    return UpstreamError(f"the connection to {provider} broke: {error}", code="upstream_broken")


def _basic(url: str) -> list[Header]:
    """The user and password of a URL, in the one form that HTTP has for them."""
    parts = urlsplit(url)
    if parts.username is None:
        return []
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return [(b"authorization", b"Basic " + base64.b64encode(pair.encode()))]


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def bearer(key: str) -> list[Header]:
    return [(b"authorization", b"Bearer " + key.encode())]
