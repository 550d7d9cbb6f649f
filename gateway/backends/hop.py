"""The hop to one replica of embedd: callers' texts leave together, and answers come back in parts.

A frame is sent as soon as there is something to send, unless one is on its way whose answer has not begun;
what comes in meanwhile leaves with the next. embedd begins to answer at once, cached texts first, so this
bounds the work in between and not the time that a model takes.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from gateway.backends.ping import ping
from schemas import hop
from schemas.hop import Answered, Call, Refused
from services.errors import Overloaded, PlatformError, Unavailable, UpstreamError
from services.h1 import BrokenOff, Exchange, H1Client
from services.ids import uuid7
from services.tasks import TaskSet

UNANSWERED_MAX: Final = 1
CALLS_A_FRAME_MAX: Final = 256
CHARS_A_FRAME_MAX: Final = 1_000_000
"""Of texts; with the last call's on top still well below what embedd takes as a body."""

Part = Answered | Refused


class ReplicaLost(Unavailable):
    """The replica gave no answer to a call. Embedding twice does no harm, so another may be asked."""

    code = "embedd_down"


OnPart = Callable[[Part | ReplicaLost, float], None]
"""Told once what became of a call, and when it was sent, by `time.perf_counter`.

A callback, since a future for each warm call would cost as much again.
"""


class HopReplica(Protocol):
    """One replica of embedd."""

    url: str

    @property
    def in_flight(self) -> int:
        """Calls under way."""

    def ask(self, make: Callable[[int], Call], done: OnPart) -> Callable[[], None]:
        """Send a call, made with the id that it is given; `done` is told what became of it.

        Returns what takes the call back; then `done` is not called. Raises `Overloaded` when too many calls
        are under way.
        """

    async def ping(self) -> None:
        """Raises `PlatformError` when it does not answer, `TimeoutError` when it does not connect in time."""

    def lose(self) -> None:
        """Give up every call under way: `done` is told `ReplicaLost`."""

    async def close(self) -> None: ...


class HttpHop:
    """A replica at a URL. `answer_timeout_s` is for the beginning of an answer, which needs no model."""

    def __init__(
        self, client: H1Client, *, answer_timeout_s: float, part_timeout_s: float, waiting_max: int
    ) -> None:
        self.url = client.base_url
        self._client = client
        self._loop = asyncio.get_running_loop()  # kept: asking for it costs a system call on Python 3.11
        self._answer_timeout_s = answer_timeout_s
        self._part_timeout_s = part_timeout_s
        self._waiting_max = waiting_max
        self._waiting: dict[int, OnPart] = {}
        self._source = uuid7()
        self._ids = itertools.count()
        self._queue: deque[Call] = deque()
        self._cancelled: list[int] = []
        self._unanswered = 0
        self._scheduled = False
        self._tasks = TaskSet()

    @property
    def in_flight(self) -> int:
        return len(self._waiting)

    def ask(self, make: Callable[[int], Call], done: OnPart) -> Callable[[], None]:
        if len(self._waiting) >= self._waiting_max:
            raise Overloaded(
                f"{len(self._waiting)} calls wait for {self.url}; at most {self._waiting_max} may"
            )
        call = make(next(self._ids))
        self._waiting[call.id] = done
        self._queue.append(call)
        self._schedule()
        return partial(self._cancel, call)

    def _schedule(self) -> None:
        if not self._scheduled and self._unanswered < UNANSWERED_MAX:
            self._scheduled = True
            self._loop.call_soon(self._send)

    def _cancel(self, call: Call) -> None:
        """Take a call back, or tell the replica to give it up."""
        if self._waiting.pop(call.id, None) is None:
            return
        if call in self._queue:
            self._queue.remove(call)
        else:
            self._cancelled.append(call.id)
            self._schedule()

    def _send(self) -> None:
        self._scheduled = False
        if not self._queue and not self._cancelled:
            return
        calls = self._take()
        cancelled, self._cancelled = self._cancelled, []
        body = hop.encode_request(self._source, calls, cancelled)
        self._unanswered += 1
        self._tasks.start(self._exchange(body, {call.id for call in calls}), name="hop")
        if self._queue:
            self._schedule()

    def _take(self) -> list[Call]:
        """The calls of the next frame: at least one of those that wait, within the limits."""
        calls: list[Call] = []
        characters = 0
        while self._queue and len(calls) < CALLS_A_FRAME_MAX and characters < CHARS_A_FRAME_MAX:
            calls.append(self._queue.popleft())
            characters += sum(map(len, calls[-1].texts))
        return calls

    async def _exchange(self, body: bytes, left: set[int]) -> None:
        """Send a frame, and see that each of its calls gets its part or is told that there will be none."""
        reason = "the answer ended without it"
        sent_s = time.perf_counter()
        try:
            exchange = await self._begin(body, left)
            try:
                await self._receive(exchange, left, sent_s)
            finally:
                exchange.close()
        except (OSError, TimeoutError, ValueError, PlatformError) as error:
            reason = str(error) or "no answer in time"
        for call_id in left:
            if (done := self._waiting.pop(call_id, None)) is not None:
                done(ReplicaLost(f"embedd at {self.url} gave no answer: {reason}"), sent_s)

    async def _begin(self, body: bytes, calls: set[int]) -> Exchange:
        """Send a frame and wait for its answer to begin, once more if anybody still waits for its calls."""
        headers = [(b"content-type", hop.CONTENT_TYPE)]
        try:
            async with asyncio.timeout(self._answer_timeout_s):
                for last in (False, True):
                    exchange = await self._client.send(b"POST", hop.PATH.encode(), headers, body)
                    try:
                        status = await exchange.head()
                    except BrokenOff:
                        if last or calls.isdisjoint(self._waiting):
                            raise
                        continue
                    if status != 200:
                        exchange.close()
                        raise UpstreamError(f"it answered {status} to a frame")
                    return exchange
        finally:
            self._unanswered -= 1
            self._schedule()
        raise AssertionError("unreachable")

    async def _receive(self, exchange: Exchange, left: set[int], sent_s: float) -> None:
        reader = hop.PartReader()

        def take(data: bytes) -> None:
            for part in reader.feed(data):
                left.discard(part.id)
                if (done := self._waiting.pop(part.id, None)) is not None:
                    done(part, sent_s)

        async with asyncio.timeout(self._part_timeout_s):
            await exchange.drain_into(take)

    async def ping(self) -> None:
        await ping(self._client, "embedd")

    def lose(self) -> None:
        waiting, self._waiting = self._waiting, {}
        self._queue.clear()
        for done in waiting.values():
            done(ReplicaLost(f"embedd at {self.url} gives no sign of life"), 0.0)
        self._client.close()  # idle connections too: who knows whether their other ends still live

    async def close(self) -> None:
        await self._tasks.close()
        self._client.close()
