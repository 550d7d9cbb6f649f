"""Finds replicas that take requests and never answer: a process that is frozen, or a link that was cut.

A dead one is noticed by whoever asks it, since its connections are refused. A silent one holds every
request for as long as a model may think, so each replica is asked for its health again and again.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import structlog

from services.errors import PlatformError

log = structlog.get_logger(__name__)

LATE_S: Final = 0.25
"""When our own clock rang so much too late, it was us who were held up: nothing follows for the replica."""


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


class Watch:
    """Asks every replica for its health, `timeout_s` for an answer."""

    def __init__(self, replicas: Callable[[], Iterable[Watched]], *, timeout_s: float) -> None:
        self._replicas = replicas
        self._timeout_s = timeout_s

    async def look(self) -> None:
        """Mark those that are silent, and give up what is under way to them; unmark those that are back."""
        await asyncio.gather(*(self._look_at(replica) for replica in self._replicas()))

    async def _look_at(self, replica: Watched) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        silent = False
        try:
            async with asyncio.timeout(self._timeout_s):
                await replica.peer.ping()
        except TimeoutError:
            if loop.time() - started > self._timeout_s + LATE_S:
                return
            silent = True
        except PlatformError:
            pass  # it is down, or says that it is not well: whoever asks it is told at once
        if silent and not replica.silent:
            log.warning("a replica is silent", url=replica.peer.url, timeout_s=self._timeout_s)
            replica.silent = True
            replica.peer.lose()
        elif replica.silent and not silent:
            log.info("a replica speaks again", url=replica.peer.url)
            replica.silent = False
