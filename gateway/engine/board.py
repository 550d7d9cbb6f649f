"""How the platform is doing: every replica is asked about itself, all at once and within a bounded time."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from prometheus_client.core import Metric
from pydantic import ValidationError

from gateway.backends import Prober
from gateway.engine import figures
from gateway.engine.figures import Figures
from gateway.engine.fleet import Standing
from gateway.engine.replicas import Standings
from schemas.status import DaemonStatus, PlatformState, PlatformStatus, ReplicaState, ReplicaStatus
from services.errors import PlatformError
from services.health import ReadyState

KEPT_S: Final = 1.0
"""For which an answer is given again, however many ask."""

SERVING: Final[tuple[ReplicaState, ...]] = ("ready", "degraded")


@dataclass(frozen=True, slots=True)
class Itself:
    """The gateway, which nobody needs to ask over HTTP: its metrics, and whether it is ready."""

    url: str
    metrics: Callable[[], Iterable[Metric]]
    ready: Callable[[], Awaitable[ReadyState]]


@dataclass(frozen=True, slots=True)
class Seen:
    """Figures, and when they were read (monotonic seconds)."""

    figures: Figures
    at_s: float


class Board:
    """Gathers the status when somebody asks for it, at most once in `KEPT_S`.

    `fleets` says which replicas there are now. Figures are compared with those of the last look.
    """

    def __init__(
        self,
        itself: Itself,
        fleets: Standings,
        prober: Prober,
        *,
        timeout_s: float,
    ) -> None:
        self._timeout_s = timeout_s
        self._itself = itself
        self._fleets = fleets
        self._prober = prober
        self._seen: dict[str, Seen] = {}
        self._asked = asyncio.Lock()
        self._last: tuple[float, PlatformStatus] | None = None

    async def status(self) -> PlatformStatus:
        """How every replica is, as of now or of at most `KEPT_S` ago."""
        async with self._asked:
            if self._last is None or time.monotonic() - self._last[0] >= KEPT_S:
                status = await self._look()
                # From its end on: who waited for a look that took long is not to wait for one more.
                self._last = (time.monotonic(), status)
            return self._last[1]

    async def _look(self) -> PlatformStatus:
        standings = {name: list(those()) for name, those in self._fleets.items()}
        own, *others = await asyncio.gather(
            self._own(), *(self._fleet(name, those) for name, those in standings.items())
        )
        here = {replica.url for daemon in (own, *others) for replica in daemon.replicas}
        self._seen = {url: seen for url, seen in self._seen.items() if url in here}
        daemons = (own, *others)
        return PlatformStatus(as_of=datetime.now(UTC), state=_overall(daemons), daemons=daemons)

    async def _own(self) -> DaemonStatus:
        ready = await self._itself.ready()  # each of its checks has a limit of its own, and a name to tell
        standing = Standing(self._itself.url, 0, ejected=False)
        return DaemonStatus(
            name="gateway", replicas=(self._told(standing, figures.of(self._itself.metrics()), ready),)
        )

    async def _fleet(self, name: str, standings: Sequence[Standing]) -> DaemonStatus:
        replicas = await asyncio.gather(*(self._replica(standing) for standing in standings))
        return DaemonStatus(name=name, replicas=tuple(replicas))

    async def _replica(self, standing: Standing) -> ReplicaStatus:
        metrics, readiness = await asyncio.gather(
            self._read(standing.url, "/metrics"), self._read(standing.url, "/readyz")
        )
        if isinstance(metrics, str):
            return _silent(standing, metrics)
        return self._told(standing, figures.read(metrics.decode("utf-8", "replace")), _ready(readiness))

    async def _read(self, url: str, path: str) -> bytes | str:
        """What a replica answers, or in words why there is nothing."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._prober.read(url, path)
        except PlatformError as error:
            return error.message
        except TimeoutError:
            return self._no_answer

    def _told(self, standing: Standing, now: Figures, ready: ReadyState | None) -> ReplicaStatus:
        earlier, window_s = self._before(standing.url, now)
        memory, in_flight = now.value(figures.MEMORY), now.value(figures.IN_FLIGHT)
        state, missing = self._state(ready)
        return ReplicaStatus(
            url=standing.url,
            state=state,
            missing=missing,
            ejected=standing.ejected,
            from_gateway=standing.in_flight,
            in_flight=None if in_flight is None else int(in_flight),
            waiting=now.waiting,
            uptime_s=_uptime_s(now),
            memory_bytes=None if memory is None else int(memory),
            window_s=window_s,
            requests_per_s=_rate(now.requests - earlier.requests, window_s),
            errors_per_s=_rate(now.errors - earlier.errors, window_s),
            latency=now.latency(figures.REQUESTS, earlier),
            overhead=now.latency(figures.OVERHEAD, earlier),
            event_loop_lag=now.latency(figures.LAG, earlier),
            cache=now.cache(earlier),
            spool=now.spool,
            log=now.log,
            datasets=now.datasets,
        )

    def _before(self, url: str, now: Figures) -> tuple[Figures, float | None]:
        """The figures of the last look, and the seconds since; those of the process's start otherwise."""
        seen, self._seen[url] = self._seen.get(url), Seen(now, time.monotonic())
        if seen is None or not _same_process(seen.figures, now):
            return figures.NOTHING, _uptime_s(now)
        return seen.figures, self._seen[url].at_s - seen.at_s

    def _state(self, ready: ReadyState | None) -> tuple[ReplicaState, dict[str, str]]:
        """A replica that gives its metrics serves, even where its dependencies take long to look at."""
        if ready is None:
            return "degraded", {"/readyz": self._no_answer}
        missing = {
            name: dependency.reason or "not there"
            for name, dependency in ready.dependencies.items()
            if not dependency.ok
        }
        return ready.status, missing

    @property
    def _no_answer(self) -> str:
        return f"no answer within {self._timeout_s:g} s"


def _silent(standing: Standing, reason: str) -> ReplicaStatus:
    return ReplicaStatus(
        url=standing.url,
        state="silent",
        missing={"/metrics": reason},
        ejected=standing.ejected,
        from_gateway=standing.in_flight,
    )


def _ready(body: bytes | str) -> ReadyState | None:
    try:
        return None if isinstance(body, str) else ReadyState.model_validate_json(body)
    except ValidationError:
        return None


def _overall(daemons: Sequence[DaemonStatus]) -> PlatformState:
    states = [[replica.state for replica in daemon.replicas] for daemon in daemons]
    if any(not any(state in SERVING for state in those) for those in states):
        return "unavailable"
    return "ready" if all(state == "ready" for those in states for state in those) else "degraded"


def _same_process(before: Figures, now: Figures) -> bool:
    """Whether no other process took the place of the one that was there."""
    return before.value(figures.STARTED) == now.value(figures.STARTED) and before.requests <= now.requests


def _uptime_s(now: Figures) -> float | None:
    started = now.value(figures.STARTED)
    return None if started is None else max(0.0, round(time.time() - started, 3))


def _rate(count: float, window_s: float | None) -> float | None:
    return round(count / window_s, 3) if window_s else None
