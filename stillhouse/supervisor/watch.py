"""How processes are doing, from outside: readiness, memory, request rates."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from schemas.base import Model
from stillhouse.supervisor.plan import Replica
from stillhouse.supervisor.ports import holder_of
from stillhouse.supervisor.probe import Unready, ask, new_client
from stillhouse.supervisor.runfile import ProcessState, RunFile
from stillhouse.supervisor.specs import MODELD, DaemonSpec

SCRAPE_INTERVAL_S = 0.5

ObservedState = ProcessState | Literal["unready", "down"]


@dataclass(frozen=True, slots=True)
class Subject:
    """A process to look at. What only a supervisor knows is None without one.

    `optional`: left out of the report when nothing answers there.
    """

    replica_label: str
    name: str
    port: int
    url: str
    pid: int | None = None
    state: ProcessState | None = None
    restarts: int | None = None
    optional: bool = False


class ProcessReport(Model):
    """One process as it is now. `unready`: it serves, and something it needs is missing; see `reason`."""

    label: str
    name: str
    state: ObservedState
    reason: str | None
    pid: int | None
    port: int
    url: str
    uptime_s: float | None
    rss_bytes: int | None
    requests_per_s: float | None
    errors_5xx: int | None
    restarts: int | None


@dataclass(frozen=True, slots=True)
class Counters:
    """Requests and 5xx answers since the process began, and the moment of counting (monotonic seconds)."""

    requests: float
    errors: float
    at_s: float


def supervised_subjects(run: RunFile) -> list[Subject]:
    """The processes of a run file."""
    return [
        Subject(
            entry.name if entry.replica == 1 else f"{entry.name}.{entry.replica}",
            entry.name,
            entry.port,
            entry.url,
            pid=entry.pid,
            state=entry.state,
            restarts=entry.restarts,
        )
        for entry in run.processes
    ]


def default_subjects(specs: Sequence[DaemonSpec]) -> list[Subject]:
    """One process of each daemon on its usual port; modeld only where it runs, since Ollama replaces it."""
    replicas = [Replica(spec, 1) for spec in specs]
    return [
        Subject(
            replica.label,
            replica.spec.name,
            replica.port,
            replica.url,
            optional=replica.spec.name == MODELD,
        )
        for replica in replicas
    ]


async def observe(subjects: Sequence[Subject]) -> list[ProcessReport]:
    """Ask all processes at once. Takes the interval between two scrapes, and longer where one is slow."""
    async with new_client() as client:
        reports = await asyncio.gather(*(_observe(client, subject) for subject in subjects))
    return [report for report in reports if report is not None]


async def _observe(client: httpx.AsyncClient, subject: Subject) -> ProcessReport | None:
    first = await _scrape(client, subject.url)
    if first is None and subject.optional:
        return None
    _, unready = await asyncio.gather(asyncio.sleep(SCRAPE_INTERVAL_S), ask(client, subject.url))
    second = await _scrape(client, subject.url)
    process = _process(subject)
    return ProcessReport(
        label=subject.replica_label,
        name=subject.name,
        state=_state(subject, unready),
        reason=unready.reason if unready is not None else None,
        pid=process.pid if process is not None else None,
        port=subject.port,
        url=subject.url,
        uptime_s=_uptime_s(process),
        rss_bytes=_rss_bytes(process),
        requests_per_s=_rate(first, second),
        errors_5xx=int(second.errors) if second is not None else None,
        restarts=subject.restarts,
    )


def _state(subject: Subject, unready: Unready | None) -> ObservedState:
    """What the process says of itself counts; what the supervisor says explains why it does not answer."""
    if unready is None:
        return "ready"
    if subject.state in {"stopping", "restarting", "failed"}:
        return subject.state
    if unready.serves:
        return "unready"
    return "starting" if subject.state == "starting" else "down"


async def _scrape(client: httpx.AsyncClient, url: str) -> Counters | None:
    try:
        response = await client.get(f"{url}/metrics")
    except httpx.HTTPError:
        return None
    if not response.is_success:
        return None
    return count_requests(response.text, at_s=time.monotonic())


def count_requests(text: str, *, at_s: float) -> Counters | None:
    """The counts in a Prometheus text, or None when it is none."""
    requests = errors = 0.0
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "http_requests_total":
                    requests += sample.value
                    if sample.labels.get("status", "").startswith("5"):
                        errors += sample.value
    except ValueError:
        return None
    return Counters(requests, errors, at_s)


def _rate(first: Counters | None, second: Counters | None) -> float | None:
    """None, too, when the process was started anew in between."""
    if first is None or second is None or second.requests < first.requests:
        return None
    return (second.requests - first.requests) / (second.at_s - first.at_s)


def _process(subject: Subject) -> psutil.Process | None:
    if subject.state is None:
        return holder_of(subject.port)
    with contextlib.suppress(psutil.Error):
        return psutil.Process(subject.pid) if subject.pid is not None else None
    return None


def _uptime_s(process: psutil.Process | None) -> float | None:
    with contextlib.suppress(psutil.Error):
        if process is not None:
            return datetime.now(UTC).timestamp() - process.create_time()
    return None


def _rss_bytes(process: psutil.Process | None) -> int | None:
    with contextlib.suppress(psutil.Error):
        if process is not None:
            return process.memory_info().rss
    return None
