"""How a request reaches a daemon: over HTTP with pooled connections, or a script in tests."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Protocol

import httpx

from services.errors import Unavailable, UpstreamError, UpstreamTimeout
from services.http import PeerClient

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request as it leaves the gateway. `target` is the path with its query.

    `repeatable`: sending it twice does no harm.
    """

    method: str
    target: str
    headers: Headers
    body: bytes
    repeatable: bool


async def _nothing() -> None:
    return


@dataclass(frozen=True, slots=True)
class Reply:
    """A daemon's answer: its head, and its body as it arrives. `aclose` frees the connection."""

    status: int
    headers: Headers
    body: AsyncIterator[bytes]
    aclose: Callable[[], Awaitable[None]] = _nothing


class NotReached(Unavailable):
    """A replica gave no answer. `maybe_done`: the request got there, so the work may have been done."""

    def __init__(self, message: str, *, code: str, maybe_done: bool) -> None:
        super().__init__(message, code=code)
        self.maybe_done = maybe_done


class Upstream(Protocol):
    """One replica of a daemon. `open` raises `NotReached` when it gives no answer."""

    async def open(self, outgoing: Outgoing) -> Reply: ...

    async def ping(self) -> None: ...


class HttpUpstream:
    """A replica at a URL."""

    def __init__(self, peer: PeerClient) -> None:
        self._peer = peer

    async def open(self, outgoing: Outgoing) -> Reply:
        stack = AsyncExitStack()
        try:
            response = await stack.enter_async_context(
                self._peer.stream(
                    outgoing.method, outgoing.target, headers=outgoing.headers, content=outgoing.body
                )
            )
        except (Unavailable, UpstreamError) as error:
            daemon = self._peer.peer
            maybe_done = isinstance(error, UpstreamError)
            message = f"{daemon} broke off before it answered; retry" if maybe_done else error.message
            raise NotReached(message, code=f"{daemon}_down", maybe_done=maybe_done) from error
        return Reply(response.status_code, response.headers.raw, self._chunks(response), stack.aclose)

    async def _chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        try:
            async for chunk in response.aiter_raw():
                yield chunk
        except httpx.TimeoutException as error:
            raise UpstreamTimeout(f"{self._peer.peer} went silent in the middle of its answer") from error
        except httpx.HTTPError as error:
            raise UpstreamError(f"{self._peer.peer} broke off in the middle of its answer") from error

    async def ping(self) -> None:
        await self._peer.ping()


@dataclass(slots=True)
class FakeUpstream:
    """Answers from a script; keeps what it was sent. An exception in the script is raised."""

    script: list[Reply | Exception] = field(default_factory=list)
    received: list[Outgoing] = field(default_factory=list)

    async def open(self, outgoing: Outgoing) -> Reply:
        self.received.append(outgoing)
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    async def ping(self) -> None:
        return


def reply(status: int, body: bytes, *headers: tuple[bytes, bytes]) -> Reply:
    """A reply whose body is already there."""

    async def chunks() -> AsyncIterator[bytes]:
        yield body

    return Reply(status, [(b"content-length", str(len(body)).encode()), *headers], chunks())
