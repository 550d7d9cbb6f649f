"""Finds replicas that take requests and never answer: a process that is frozen, or a link that was cut.

A dead one is noticed by whoever asks it, since its connections are refused. A silent one holds every
request for as long as a model may think, so each replica is asked for its health again and again.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

import structlog

from services.errors import PlatformError
from services.tasks import TaskSet

log = structlog.get_logger(__name__)

LATE_S: Final = 0.25
"""When our own clock rang so much too late, it was us who were held up."""


class Peer(Protocol):
    @property
    def url(self) -> str: ...

    async def ping(self) -> None: ...

    def lose(self) -> None: ...


class Watched(Protocol):
    """One replica as it is chosen from: not while it is `silent`."""

    silent: bool

    @property
    def peer(self) -> Peer: ...


class Group(Protocol):
    """The replicas of one daemon."""

    @property
    def replicas(self) -> Sequence[Watched]: ...

    def silenced(self) -> None:
        """One of them is silent from now on."""


class Watch:
    """Asks every replica for its health, `timeout_s` for an answer. Each on its own: none delays another."""

    def __init__(self, groups: Sequence[Group], *, timeout_s: float) -> None:
        self._groups = groups
        self._timeout_s = timeout_s
        self._looked_at: set[Watched] = set()
        self._tasks = TaskSet()

    async def look(self) -> None:
        """Begin to look at every replica but those that an earlier look still waits for.

        Those that turn out silent are marked, and what is under way to them is given up; those that are back
        are unmarked.
        """
        for group in self._groups:
            for replica in group.replicas:
                if replica not in self._looked_at:
                    self._looked_at.add(replica)
                    self._tasks.start(self._look_at(replica, group), name="look at a replica")

    async def close(self) -> None:
        await self._tasks.close()

    async def _look_at(self, replica: Watched, group: Group) -> None:
        try:
            speaks = await self._speaks(replica.peer)
        finally:
            self._looked_at.discard(replica)
        if speaks and replica.silent:
            log.info("a replica speaks again", url=replica.peer.url)
            replica.silent = False
        if speaks:
            return
        if not replica.silent:
            log.warning("a replica is silent", url=replica.peer.url, timeout_s=self._timeout_s)
            replica.silent = True
            group.silenced()
        replica.peer.lose()  # each time: a request may have been on its way there when it went silent

    async def _speaks(self, peer: Peer) -> bool:
        """Whether it says anything: that it is down, or not well, is told at once to whoever asks it."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        asked = asyncio.ensure_future(peer.ping())
        try:
            await asyncio.wait([asked], timeout=self._timeout_s)
            late_s = loop.time() - started - self._timeout_s
            if not asked.done() and late_s > LATE_S:
                await asyncio.wait([asked], timeout=late_s)  # its answer may wait where ours did
            if not asked.done():
                return False
            asked.result()
        except TimeoutError:  # of its connection
            return loop.time() - started > self._timeout_s + LATE_S
        except PlatformError:
            return True
        finally:
            asked.cancel()
        return True
