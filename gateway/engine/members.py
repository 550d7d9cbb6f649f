"""Which replicas of embedd there are: those that are configured, and those a name stands for just now."""

from collections.abc import Awaitable, Callable, Sequence

import structlog

from gateway.backends import HttpHop
from gateway.engine.embeddings import Rendezvous

log = structlog.get_logger(__name__)


class Members:
    """Keeps the rendezvous in step with the addresses of the configured URLs."""

    def __init__(
        self,
        urls: Sequence[str],
        rendezvous: Rendezvous,
        *,
        resolve: Callable[[str], Awaitable[list[str]]],
        connect: Callable[[str], HttpHop],
    ) -> None:
        self._urls = urls
        self._rendezvous = rendezvous
        self._resolve = resolve
        self._connect = connect
        self._hops: dict[str, HttpHop] = {}

    async def refresh(self) -> None:
        """Look the names up again. When none has an address, the last replicas stay: they may still serve."""
        found = [address for url in self._urls for address in await self._resolve(url)]
        if not found or set(found) == set(self._hops):
            return
        log.info("replicas of embedd", replicas=len(found))
        gone = [url for url in self._hops if url not in found]
        for url in found:
            if url not in self._hops:
                self._hops[url] = self._connect(url)
        self._rendezvous.set_replicas([self._hops[url] for url in found])
        for url in gone:
            await self._hops.pop(url).close()

    async def close(self) -> None:
        for hop in self._hops.values():
            await hop.close()
