"""Which replicas of a daemon there are: those that are configured, and those a name stands for just now."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, Protocol, TypeVar

import structlog

from services.tasks import TaskSet

log = structlog.get_logger(__name__)

LOOK_S: Final = 0.1
"""How often one that left is looked at, until nothing is under way to it any more."""


class Connected(Protocol):
    """What requests to one replica go through."""

    @property
    def in_flight(self) -> int: ...

    async def close(self) -> None: ...


Each = TypeVar("Each", bound=Connected)


class Members(Generic[Each]):
    """Keeps connections in step with the addresses of the configured URLs; `use` is told of every change."""

    def __init__(
        self,
        daemon: str,
        urls: Sequence[str],
        *,
        resolve: Callable[[str], Awaitable[list[str]]],
        connect: Callable[[str], Each],
        use: Callable[[list[Each]], None],
        drain_s: float,
    ) -> None:
        self._daemon = daemon
        self._urls = urls
        self._resolve = resolve
        self._connect = connect
        self._use = use
        self._drain_s = drain_s
        self._there: dict[str, Each] = {}
        self._leaving = TaskSet()

    async def refresh(self) -> None:
        """Look the names up again. When none has an address, the last replicas stay: they may still serve."""
        found = [address for url in self._urls for address in await self._resolve(url)]
        if not found or set(found) == set(self._there):
            return
        log.info("replicas", of=self._daemon, count=len(found))
        gone = [url for url in self._there if url not in found]
        for url in found:
            if url not in self._there:
                self._there[url] = self._connect(url)
        self._use([self._there[url] for url in found])
        for url in gone:
            self._leaving.start(self._drain(self._there.pop(url)), name=f"drain {self._daemon}")

    async def close(self) -> None:
        await self._leaving.close()
        for each in self._there.values():
            await each.close()

    async def _drain(self, each: Each) -> None:
        """Nothing new goes to one that left; what is under way may end."""
        try:
            async with asyncio.timeout(self._drain_s):
                while each.in_flight:  # noqa: ASYNC110 - the hot path does not stop to tell
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            log.warning("a replica that left was cut off", of=self._daemon, in_flight=each.in_flight)
        finally:
            await each.close()
