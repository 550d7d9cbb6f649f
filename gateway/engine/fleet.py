"""The replicas of a daemon, and which one is asked."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gateway.backends import NotReached, Outgoing, Reply, Upstream
from services.errors import PlatformError, Unavailable

TRIES_MIN = 2


@dataclass(slots=True)
class Replica:
    """One process of a daemon, with what is under way to it and until when it is passed over."""

    upstream: Upstream
    in_flight: int = 0
    ejected_until: float = 0.0


class Fleet:
    """The replicas of one daemon. The one with the fewest requests under way is asked."""

    def __init__(self, daemon: str, upstreams: Sequence[Upstream], *, ejection_s: float) -> None:
        self.daemon = daemon
        self._replicas = [Replica(upstream) for upstream in upstreams]
        self._ejection_s = ejection_s

    def _choose(self, tried: Sequence[Replica], outgoing: Outgoing) -> Replica | None:
        """The next replica to ask, or None. A request that may be repeated is sent at least twice."""
        left = [replica for replica in self._replicas if replica not in tried]
        if not left and outgoing.repeatable and len(tried) < TRIES_MIN:
            left = self._replicas
        now = time.monotonic()
        # With every replica ejected the choice is between failing and trying: try.
        healthy = [replica for replica in left if replica.ejected_until <= now] or left
        return min(healthy, key=lambda replica: replica.in_flight, default=None)

    @asynccontextmanager
    async def exchange(self, outgoing: Outgoing) -> AsyncIterator[Reply]:
        """Send a request to a replica and hold its reply.

        A replica that cannot be reached is passed over for a while and the next one asked. One that breaks
        off before answering may have done the work, so only a request that may be repeated goes on to the
        next. Raises `Unavailable` when nobody answered.
        """
        tried: list[Replica] = []
        failure = Unavailable(f"{self.daemon} has no replica", code=f"{self.daemon}_down")
        while (replica := self._choose(tried, outgoing)) is not None:
            tried.append(replica)
            replica.in_flight += 1
            try:
                reply = await replica.upstream.open(outgoing)
                replica.ejected_until = 0.0
                try:
                    yield reply
                finally:
                    await reply.aclose()
                return
            except NotReached as error:
                replica.ejected_until = time.monotonic() + self._ejection_s
                failure = error
                if error.maybe_done and not outgoing.repeatable:
                    break
            finally:
                replica.in_flight -= 1
        raise failure

    async def ping(self) -> None:
        """Raise, with the reason, unless one replica answers."""
        reasons: list[str] = []
        for replica in self._replicas:
            try:
                await replica.upstream.ping()
            except PlatformError as error:
                reasons.append(error.message)
            else:
                return
        raise Unavailable("; ".join(reasons))
