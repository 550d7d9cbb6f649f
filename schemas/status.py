"""How the whole platform is doing, as `GET /v1/status` of the gateway tells it."""

from typing import Literal

from pydantic import AwareDatetime

from schemas.base import Model

ReplicaState = Literal["ready", "degraded", "unavailable", "silent"]
"""`degraded`: serves, with something optional missing. `silent`: did not answer in time."""


PlatformState = Literal["ready", "degraded", "unavailable"]


class Latency(Model):
    """Times in milliseconds, read off a histogram: half of them, and 99 of 100, were at most so long."""

    p50_ms: float
    p99_ms: float


class CacheStatus(Model):
    """A cache: what it found and what it did not within the window, and the share of the found."""

    hits: int
    misses: int
    hit_share: float | None
    bytes: int


class SpoolStatus(Model):
    """Records that distill has not acknowledged yet, and those that it refused since the start."""

    records: int
    bytes: int
    refused: int


class LogStatus(Model):
    """The evidence log: bytes on the disk, bytes that wait to be written, records taken since the start."""

    bytes: int
    waiting_bytes: int
    appended: int


class DatasetStatus(Model):
    """Exported datasets, and whether a stage runs just now."""

    datasets: int
    job_running: bool


class ReplicaStatus(Model):
    """One process of a daemon.

    Rates, times and the cache's counts are of the last `window_s` seconds: since somebody last asked for the
    status, at first since the process began. They are null where nothing can be said. `from_gateway` are the
    requests that this gateway has under way there, `in_flight` those that the daemon serves at all; `waiting`
    is what stands in its own queue. `ejected`: the gateway passes it over, since it did not answer.
    `missing` are the dependencies that are not there, with the reason for each.
    """

    url: str
    state: ReplicaState
    missing: dict[str, str]
    ejected: bool = False
    from_gateway: int = 0
    in_flight: int | None = None
    waiting: int | None = None
    uptime_s: float | None = None
    memory_bytes: int | None = None
    window_s: float | None = None
    requests_per_s: float | None = None
    errors_per_s: float | None = None
    latency: Latency | None = None
    overhead: Latency | None = None
    event_loop_lag: Latency | None = None
    cache: CacheStatus | None = None
    spool: SpoolStatus | None = None
    log: LogStatus | None = None
    datasets: DatasetStatus | None = None


class DaemonStatus(Model):
    """One daemon, with all of its replicas that the gateway knows."""

    name: str
    replicas: tuple[ReplicaStatus, ...]


class PlatformStatus(Model):
    """`unavailable`: a daemon has no replica that serves. `degraded`: something else is missing."""

    as_of: AwareDatetime
    state: PlatformState
    daemons: tuple[DaemonStatus, ...]
