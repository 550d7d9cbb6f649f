"""How a request reaches a daemon: over HTTP with pooled connections, or a script in tests.

There are two ways to ask a replica. `start` sends a request at once, over a connection that is there, and
tells a listener what comes back; it needs no task. `open` waits for a place, and connects.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from gateway.backends.bulkhead import Bulkhead
from gateway.backends.ping import ping
from services.errors import PlatformError, Unauthenticated, Unavailable, UpstreamError, UpstreamTimeout
from services.h1 import BrokenOff, Connection, Exchange, H1Client, NotConnected
from services.middleware import DRAINING

Headers = Sequence[tuple[bytes, bytes]]

LOOKS_A_TIMEOUT: Final = 10
"""How often calls are looked at within the time that a daemon may be silent."""


def _unnoticed() -> None:
    return


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request as it leaves the gateway. `target` is the path with its query.

    `repeatable`: sending it twice does no harm. `sent` is called whenever a replica was sent it.
    """

    method: str
    target: bytes
    headers: Headers
    body: bytes
    repeatable: bool
    sent: Callable[[], None] = _unnoticed


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


class Listener(Protocol):
    """Told of an answer as it arrives: head, pieces, and once that it is over, and why if it failed."""

    def head(self, status: int, headers: Headers) -> None: ...

    def data(self, data: bytes) -> None: ...

    def done(self, error: PlatformError | None) -> None: ...


class Call(Protocol):
    """An exchange under way. All three do nothing once the listener was told that it is over."""

    def cancel(self) -> None:
        """Give it up. The listener is told nothing more."""

    def pause(self) -> None:
        """Let what comes wait. A little more may still arrive."""

    def resume(self) -> None: ...


class Upstream(Protocol):
    """One replica of a daemon."""

    @property
    def url(self) -> str: ...

    @property
    def waiting(self) -> int:
        """How many requests wait for a place there."""

    async def open(self, outgoing: Outgoing) -> Reply:
        """Raises `NotReached` when it gives no answer, and `Overloaded` when too many wait for it."""

    def start(self, outgoing: Outgoing, listener: Listener) -> Call | None:
        """Send at once, or do nothing and return None. The listener is told nothing before this returns."""

    async def ping(self) -> None:
        """Raises `PlatformError` when it does not answer, `TimeoutError` when it does not connect in time."""

    def lose(self) -> None:
        """Give up every exchange under way, as when its connection breaks, and what waits for a place."""

    async def close(self) -> None: ...


class HttpUpstream:
    """A replica at a URL. `read_timeout_s` is how long it may be silent before and within an answer."""

    def __init__(self, daemon: str, client: H1Client, bulkhead: Bulkhead, *, read_timeout_s: float) -> None:
        self.daemon = daemon
        self._client = client
        self._bulkhead = bulkhead
        self._read_timeout_s = read_timeout_s
        self._calls: set[_HttpCall] = set()
        self._exchanges: set[Exchange] = set()
        self._next_look: asyncio.TimerHandle | None = None
        self._losses = 0

    @property
    def url(self) -> str:
        return self._client.base_url

    @property
    def waiting(self) -> int:
        return self._bulkhead.waiting

    # --- without a task -------------------------------------------------------------------------

    def start(self, outgoing: Outgoing, listener: Listener) -> Call | None:
        if not self._bulkhead.enter_now():
            return None
        call = _HttpCall(self, listener, self._client.loop.time)
        connection = self._client.start(
            outgoing.method.encode(), outgoing.target, outgoing.headers, outgoing.body, call
        )
        if connection is None:
            self._bulkhead.leave()
            return None
        outgoing.sent()
        call.connection = connection
        self._calls.add(call)
        if self._next_look is None:
            self._plan_look()
        return call

    def ended(self, call: "_HttpCall") -> None:
        self._calls.discard(call)
        self._bulkhead.leave()

    def _plan_look(self) -> None:
        self._next_look = self._client.loop.call_later(self._read_timeout_s / LOOKS_A_TIMEOUT, self._look)

    def _look(self) -> None:
        """End the calls that heard nothing for too long. One timer for all: each of its own costs more."""
        self._next_look = None
        heard_since = self._client.loop.time() - self._read_timeout_s
        for call in list(self._calls):
            if call.heard < heard_since and not call.paused:
                call.give_up()
        if self._calls:
            self._plan_look()

    # --- with one -------------------------------------------------------------------------------

    async def open(self, outgoing: Outgoing) -> Reply:
        losses = self._losses
        await self._bulkhead.enter()
        if losses != self._losses:
            self._bulkhead.leave()
            raise self.unreachable()
        try:
            exchange = await self._begin(outgoing)
        except BaseException:
            self._bulkhead.leave()
            raise
        return Reply(
            exchange.status, exchange.headers, self._chunks(exchange), partial(self._release, exchange)
        )

    async def _begin(self, outgoing: Outgoing) -> Exchange:
        try:
            exchange = await self._client.send(
                outgoing.method.encode(), outgoing.target, outgoing.headers, outgoing.body
            )
        except NotConnected as error:
            raise self.unreachable() from error
        outgoing.sent()
        self._exchanges.add(exchange)
        try:
            async with asyncio.timeout(self._read_timeout_s):
                await exchange.head()
        except BaseException as error:
            self._close(exchange)
            if isinstance(error, BrokenOff):
                raise self.unanswered() from error
            if isinstance(error, TimeoutError):
                raise self.silent() from error
            raise
        refusal = self.refused(exchange.status, exchange.headers)
        if refusal is not None:
            self._close(exchange)
            raise refusal
        return exchange

    async def _chunks(self, exchange: Exchange) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(self._read_timeout_s):
                    chunk = await exchange.read()
            except TimeoutError as error:
                raise self.silenced() from error
            except BrokenOff as error:
                raise self.broken_off() from error
            if not chunk:
                return
            yield chunk

    async def _release(self, exchange: Exchange) -> None:
        self._close(exchange)
        self._bulkhead.leave()

    def _close(self, exchange: Exchange) -> None:
        self._exchanges.discard(exchange)
        exchange.close()

    async def ping(self) -> None:
        await ping(self._client, self.daemon)

    def lose(self) -> None:
        self._losses += 1
        for call in list(self._calls):
            call.lose()
        self._client.close()  # idle connections too: who knows whether their other ends still live

    @property
    def in_flight(self) -> int:
        return len(self._calls) + len(self._exchanges)

    async def close(self) -> None:
        self._client.close()

    # --- what failures mean ---------------------------------------------------------------------

    def unreachable(self) -> PlatformError:
        return NotReached(
            f"{self.daemon} does not answer at {self._client.base_url}",
            code=f"{self.daemon}_down",
            maybe_done=False,
        )

    def unanswered(self) -> PlatformError:
        return NotReached(
            f"{self.daemon} broke off before it answered; retry",
            code=f"{self.daemon}_down",
            maybe_done=True,
        )

    def refused(self, status: int, headers: Headers) -> PlatformError | None:
        """What of an answer is meant for us rather than for our caller.

        A 401 is not about them, whose key we know: it is us whom the daemon does not.
        """
        if status == Unauthenticated.status:
            return UpstreamError(
                f"{self.daemon} refuses the gateway; give both the same STILLHOUSE_INTERNAL_TOKEN",
                code="internal_token",
            )
        if status == Unavailable.status and DRAINING in headers:
            return NotReached(
                f"{self.daemon} is shutting down; retry", code=f"{self.daemon}_down", maybe_done=False
            )
        return None

    def silent(self) -> PlatformError:
        return UpstreamTimeout(f"{self.daemon} gave no answer within {self._read_timeout_s:g} s")

    def broken_off(self) -> PlatformError:
        return UpstreamError(f"{self.daemon} broke off in the middle of its answer")

    def silenced(self) -> PlatformError:
        return UpstreamTimeout(f"{self.daemon} went silent in the middle of its answer")


class _HttpCall:
    """A call that was started at once. `heard` is when its replica last gave a sign of life."""

    __slots__ = ("_answering", "_clock", "_listener", "_over", "_upstream", "connection", "heard", "paused")

    def __init__(self, upstream: HttpUpstream, listener: Listener, clock: Callable[[], float]) -> None:
        self._upstream = upstream
        self._listener = listener
        self._clock = clock
        self._answering = False
        self._over = False
        self.connection: Connection | None = None
        self.heard = clock()
        self.paused = False

    # --- services.h1.Receiver ---

    def head_arrived(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        refusal = self._upstream.refused(status, headers)
        if refusal is not None:
            self._give_up(refusal)
        elif not self._over:
            self._answering = True
            self.heard = self._clock()
            self._listener.head(status, headers)

    def body_arrived(self, data: bytes) -> None:
        if not self._over:
            self.heard = self._clock()
            self._listener.data(data)

    def finished(self) -> None:
        if not self._over:
            self._end(None)

    def failed(self, _: BrokenOff) -> None:
        if not self._over:
            self._end(self._upstream.broken_off() if self._answering else self._upstream.unanswered())

    def lose(self) -> None:
        """Its replica is gone, as far as anybody can tell."""
        self._give_up(self._upstream.broken_off() if self._answering else self._upstream.unanswered())

    def give_up(self) -> None:
        """It was silent for too long."""
        self._give_up(self._upstream.silenced() if self._answering else self._upstream.silent())

    def _give_up(self, error: PlatformError) -> None:
        if self._over:
            return
        connection = self.connection
        self._end(error)
        if connection is not None:
            connection.close()

    def _end(self, error: PlatformError | None) -> None:
        self._over = True
        self.connection = None
        self._upstream.ended(self)
        self._listener.done(error)

    # --- Call ---

    def cancel(self) -> None:
        if not self._over:
            self._over = True
            connection, self.connection = self.connection, None
            self._upstream.ended(self)
            if connection is not None:
                connection.close()

    def pause(self) -> None:
        if self.connection is not None:
            self.paused = True
            self.connection.pause()

    def resume(self) -> None:
        if self.connection is not None:
            self.paused = False
            self.heard = self._clock()
            self.connection.resume()


@dataclass(eq=False, slots=True)
class FakeUpstream:
    """Answers from a script; keeps what it was sent. An exception in the script is raised."""

    script: list[Reply | Exception] = field(default_factory=list)
    url: str = "http://fake"
    received: list[Outgoing] = field(default_factory=list)
    waiting: int = 0

    async def open(self, outgoing: Outgoing) -> Reply:
        self.received.append(outgoing)
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def start(self, outgoing: Outgoing, listener: Listener) -> Call | None:  # noqa: ARG002 - scripts wait
        return None

    async def ping(self) -> None:
        return

    def lose(self) -> None:
        return

    async def close(self) -> None:
        return


def reply(status: int, body: bytes, *headers: tuple[bytes, bytes]) -> Reply:
    """A reply whose body is already there."""

    async def chunks() -> AsyncIterator[bytes]:
        yield body

    return Reply(status, [(b"content-length", str(len(body)).encode()), *headers], chunks())
