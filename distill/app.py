"""The composition root: the only place where the parts of `distill` are put together."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypedDict

import structlog

from distill.backends import Disk, HttpPeers, OsDisk, Peers
from distill.engine import (
    SHIPPED,
    Engine,
    Jobs,
    Limits,
    Log,
    LogLimits,
    Metrics,
    Stages,
    StageSettings,
    places,
    shards,
)
from distill.engine.receipts import Receipts
from distill.engine.replay import ReplaySettings
from distill.routes import RunsDoor, routes
from distill.settings import Settings
from services import daemon
from services.daemon import Daemon
from services.errors import PlatformError, Unavailable
from services.health import Check
from services.tasks import task_set
from services.telemetry import CollectorRegistry

log = structlog.get_logger(__name__)


class State(TypedDict):
    settings: Settings
    engine: Engine
    checks: dict[str, Check]


def create_app(
    settings: Settings, *, disk: Disk | None = None, peers: Callable[[], Peers] | None = None
) -> Daemon:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    under = disk or OsDisk()
    data = settings.data.absolute()

    @asynccontextmanager
    async def lifespan(_: Daemon) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            index = data / shards.FOLDER / shards.INDEX / f"log-{settings.writer_id or 'own'}.sqlite"
            store = Log(data / places.LOG, settings.writer_id, _limits(settings), under, metrics, index=index)
            stack.callback(store.close)
            await _open(store)
            await _ready_to_sign(data)
            tasks = await stack.enter_async_context(task_set())
            tasks.start(store.commit_forever(), name="commit")
            stages = Stages(store, data, _stages(settings, peers or partial(_peers, settings)), metrics)
            jobs = Jobs(stages, tasks, metrics, kept_max=settings.jobs_kept_max)
            stack.push_async_callback(jobs.close)
            engine = Engine(
                store,
                data,
                jobs,
                metrics,
                lines_max=settings.lines_max,
                depth_max=settings.depth_max,
                page_scan_max=settings.page_scan_max,
                life_bytes_max=settings.life_bytes_max,
                review_queue_max=settings.review_queue_max,
            )
            yield {"settings": settings, "engine": engine, "checks": _checks(settings, store, under)}

    return daemon.build("distill", routes, lifespan, settings, registry=registry, direct=RunsDoor)


def _limits(settings: Settings) -> LogLimits:
    return LogLimits(
        segment_bytes_max=settings.segment_bytes_max,
        group_bytes_max=settings.group_bytes_max,
        queue_bytes_max=settings.queue_bytes_max,
        notes_max=settings.notes_max,
    )


def _stages(settings: Settings, peers: Callable[[], Peers]) -> StageSettings:
    return StageSettings(
        processes=settings.processes or os.cpu_count() or 1,
        inline_bytes_max=settings.inline_bytes_max,
        limits=Limits(
            part_bytes=settings.shard_bytes,
            line_bytes_max=settings.line_bytes_max,
            depth_max=settings.depth_max,
        ),
        rules=settings.rules or SHIPPED,
        peers=peers,
        replays=ReplaySettings(
            peers=peers,
            concurrency_max=settings.replay_concurrency_max,
            store_bytes_max=settings.cassette_bytes_max,
        ),
        embed_model=settings.embed_model,
    )


def _peers(settings: Settings) -> HttpPeers:
    return HttpPeers(
        settings.chatd_url,
        settings.validators_url,
        settings.vectord_url,
        timeout_s=settings.replay_timeout_s,
        headers=settings.internal_headers,
    )


async def _open(store: Log) -> None:
    try:
        await asyncio.to_thread(store.open)
    except PlatformError as error:
        log.critical("the log cannot be opened", code=error.code, reason=error.message)
        raise


async def _ready_to_sign(data: Path) -> None:
    """Have a key for receipts. Without one, stages fail, and records are kept all the same."""
    try:
        await asyncio.to_thread(Receipts(data).key)
    except PlatformError as error:
        log.warning("no receipts can be signed", code=error.code, reason=error.message)


def _checks(settings: Settings, store: Log, disk: Disk) -> dict[str, Check]:
    async def log_writable() -> None:
        store.check()

    async def disk_free() -> None:
        free = disk.free_bytes(store.folder)
        if free < settings.disk_free_bytes_min:
            raise Unavailable(
                f"{free} bytes are free under {store.folder};"
                f" at least {settings.disk_free_bytes_min} are needed"
            )

    return {"log": Check(log_writable), "disk": Check(disk_free)}
