"""The replicas of a daemon, and which one is asked."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from gateway.backends import Call, Headers, Listener, NotReached, Outgoing, Reply, Upstream
from gateway.engine.hold import Hold, Turn
from services.errors import Draining, PlatformError, Unavailable
from services.tasks import TaskSet

TRIES_MIN = 2
CHOICES = 2


@dataclass(eq=False, slots=True)
class Replica:
    """One process of a daemon, with what is under way to it and until when it is passed over.

    One that is `silent` takes connections and gives no answer: it is not asked until it does again.
    """

    upstream: Upstream
    in_flight: int = 0
    ejected_until: float = 0.0
    silent: bool = False

    @property
    def peer(self) -> Upstream:
        return self.upstream


class Standing(NamedTuple):
    """A replica as the gateway sees it: what it has under way there, and whether it is passed over.

    `waiting`: so many of those have no place there yet.
    """

    url: str
    in_flight: int
    ejected: bool
    waiting: int = 0


class Fleet:
    """The replicas of one daemon. Of two by chance, the one with the fewer requests under way is asked.

    By chance, since several gateways that all saw the same one idle would all ask it.
    """

    def __init__(
        self,
        daemon: str,
        upstreams: Sequence[Upstream],
        *,
        ejection_s: float,
        wait_s: float = 0.0,
        restart_s: float = 0.0,
        held_max: int = 0,
    ) -> None:
        """`wait_s`, `restart_s` and `held_max` are for the time that a restart takes: see `Hold`."""
        self.daemon = daemon
        self.hold = Hold(
            self.ping, silent=self._all_silent, wait_s=wait_s, restart_s=restart_s, held_max=held_max
        )
        self._replicas: list[Replica] = []
        self._ejection_s = ejection_s
        self._tasks = TaskSet()
        self.set_replicas(upstreams)

    def set_replicas(self, upstreams: Sequence[Upstream]) -> None:
        """Replace the replicas. Those that stay keep their state; requests under way are not touched."""
        known = {replica.upstream: replica for replica in self._replicas}
        self._replicas = [known.get(upstream) or Replica(upstream) for upstream in upstreams]

    @property
    def replicas(self) -> Sequence[Replica]:
        return self._replicas

    def _choose(self, tried: Sequence[Replica], outgoing: Outgoing) -> Replica | None:
        """The next replica to ask, or None. A request that may be repeated is sent at least twice.

        Nobody is asked who is about to stop, with nobody else there: they may close under the request.
        """
        if self.hold.announced:
            return None
        if not tried and len(self._replicas) == 1:
            return None if self._replicas[0].silent else self._replicas[0]
        speaking = [replica for replica in self._replicas if not replica.silent]
        left = [replica for replica in speaking if replica not in tried]
        if not left and outgoing.repeatable and len(tried) < TRIES_MIN:
            left = speaking
        now = time.monotonic()
        # With every replica ejected the choice is between failing and trying: try.
        healthy = [replica for replica in left if replica.ejected_until <= now] or left
        if len(healthy) > CHOICES:
            healthy = random.sample(healthy, CHOICES)
        return min(healthy, key=lambda replica: replica.in_flight, default=None)

    @asynccontextmanager
    async def exchange(
        self,
        outgoing: Outgoing,
        tried: Sequence[Replica] = (),
        failure: PlatformError | None = None,
    ) -> AsyncIterator[Reply]:
        """Send a request to a replica and hold its reply. Those that were `tried` had their `failure`.

        A replica that cannot be reached is passed over for a while and the next one asked. One that breaks
        off before answering may have done the work, so only a request that may be repeated goes on to the
        next. Raises `Unavailable` when nobody answered.
        """
        tried = list(tried)
        turn = self.hold.turn()
        while (replica := await self._next(tried, outgoing, failure, turn)) is not None:
            tried.append(replica)
            replica.in_flight += 1
            try:
                reply = await replica.upstream.open(outgoing)
                self.heard_from(replica)
                try:
                    yield reply
                finally:
                    await reply.aclose()
                return
            except NotReached as error:
                self.eject(replica)
                failure = error
                if error.maybe_done and not outgoing.repeatable:
                    break
            finally:
                replica.in_flight -= 1
        raise failure or Unavailable(
            f"no replica of {self.daemon} gives a sign of life", code=f"{self.daemon}_down"
        )

    async def _next(
        self, tried: list[Replica], outgoing: Outgoing, failure: PlatformError | None, turn: Turn
    ) -> Replica | None:
        """The next one to ask; from the beginning when all were gone and one is back. None: give it up."""
        replica = self._choose(tried, outgoing)
        undone = failure is None or (isinstance(failure, NotReached) and not failure.maybe_done)
        if replica is None and undone and await turn.back():
            tried.clear()
            for each in self._replicas:
                each.ejected_until = 0.0
            replica = self._choose(tried, outgoing)
        return replica

    def heard_from(self, replica: Replica) -> None:
        replica.ejected_until = 0.0
        self.hold.heard()

    def start(self, outgoing: Outgoing, listener: Listener) -> Call:
        """The same without a task, where a replica can be asked at once and answers; with one otherwise."""
        passing = _Passing(self, outgoing, listener)
        replica = self._choose((), outgoing)
        if replica is None or not passing.start(replica):
            passing.start_task()
        return passing

    def silenced(self) -> None:
        """One of the replicas is silent from now on. With all of them so, nobody waits for a restart."""
        if self._all_silent():
            self.hold.give_up()

    def _all_silent(self) -> bool:
        return all(replica.silent for replica in self._replicas)

    def eject(self, replica: Replica) -> None:
        """Pass a replica over for a while."""
        replica.ejected_until = time.monotonic() + self._ejection_s

    def in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._tasks.start(work, name=f"ask {self.daemon}")

    async def close(self) -> None:
        """Give up what is under way in tasks."""
        await self.hold.close()
        await self._tasks.close()

    def standings(self) -> list[Standing]:
        """How its replicas stand."""
        now = time.monotonic()
        return [
            Standing(
                replica.upstream.url,
                replica.in_flight,
                replica.silent or replica.ejected_until > now,
                replica.upstream.waiting,
            )
            for replica in self._replicas
        ]

    async def ping(self) -> None:
        """Raise, with the reasons, unless one replica answers. `Draining`: one does, but is about to stop."""
        failures: list[PlatformError] = []
        for replica in self._replicas:
            if replica.silent:  # the watch asks it
                failures.append(Unavailable(f"{replica.upstream.url} gives no sign of life"))
                continue
            try:
                await replica.upstream.ping()
            except PlatformError as error:
                failures.append(error)
            except TimeoutError:
                failures.append(Unavailable(f"{replica.upstream.url} takes no connection"))
            else:
                return
        kind = Draining if any(isinstance(error, Draining) for error in failures) else Unavailable
        raise kind("; ".join(error.message for error in failures))


class _Passing:
    """A request on its way to a replica and its answer on the way back: a `Listener` and a `Call` at once."""

    __slots__ = ("_call", "_fleet", "_listener", "_outgoing", "_replica", "_room", "_task")

    def __init__(self, fleet: Fleet, outgoing: Outgoing, listener: Listener) -> None:
        self._fleet = fleet
        self._outgoing = outgoing
        self._listener = listener
        self._replica: Replica | None = None
        self._call: Call | None = None
        self._task: asyncio.Task[None] | None = None
        self._room: asyncio.Event | None = None

    def start(self, replica: Replica) -> bool:
        """Ask a replica without a task, if that can be done."""
        call = replica.upstream.start(self._outgoing, self)
        if call is None:
            return False
        replica.in_flight += 1
        self._replica, self._call = replica, call
        return True

    def start_task(self, tried: Sequence[Replica] = (), failure: PlatformError | None = None) -> None:
        self._room = asyncio.Event()
        self._room.set()
        self._task = self._fleet.in_background(self._pass(tried, failure, self._room))

    # --- Listener ---

    def head(self, status: int, headers: Headers) -> None:
        if self._replica is not None:
            self._fleet.heard_from(self._replica)
        self._listener.head(status, headers)

    def data(self, data: bytes) -> None:
        self._listener.data(data)

    def done(self, error: PlatformError | None) -> None:
        replica = self._left()
        if replica is not None and isinstance(error, NotReached):
            self._fleet.eject(replica)
            if self._outgoing.repeatable or not error.maybe_done:
                self.start_task([replica], error)
                return
        self._listener.done(error)

    def _left(self) -> Replica | None:
        replica, self._replica, self._call = self._replica, None, None
        if replica is not None:
            replica.in_flight -= 1
        return replica

    # --- Call ---

    def cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._left()
        if self._task is not None:
            self._task.cancel()

    def pause(self) -> None:
        if self._call is not None:
            self._call.pause()
        if self._room is not None:
            self._room.clear()

    def resume(self) -> None:
        if self._call is not None:
            self._call.resume()
        if self._room is not None:
            self._room.set()

    # --- with a task ---

    async def _pass(
        self, tried: Sequence[Replica], before: PlatformError | None, room: asyncio.Event
    ) -> None:
        failure: PlatformError | None = PlatformError("unexpected failure")
        try:
            async with self._fleet.exchange(self._outgoing, tried, before) as reply:
                self._listener.head(reply.status, reply.headers)
                async for chunk in reply.body:
                    self._listener.data(chunk)
                    await room.wait()
            failure = None
        except PlatformError as error:
            failure = error
        except asyncio.CancelledError:
            self._task = None
            raise
        finally:
            if self._task is not None:  # also after what nobody foresaw, which the task set logs
                self._task = None
                self._listener.done(failure)
