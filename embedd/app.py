"""The composition root: the only place where the parts of `embedd` are put together."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypedDict

from embedd.backends import Backend, OllamaBackend
from embedd.engine import Engine, Metrics
from embedd.routes import routes
from embedd.settings import Settings
from services import daemon
from services.daemon import Daemon
from services.health import Check
from services.http import Limits, PeerClient, Timeouts
from services.telemetry import CollectorRegistry


class State(TypedDict):
    settings: Settings
    engine: Engine
    checks: dict[str, Check]


def create_app(settings: Settings, *, backend: Backend | None = None) -> Daemon:
    registry = CollectorRegistry()

    @asynccontextmanager
    async def lifespan(_: Daemon) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            source = backend or OllamaBackend(
                await stack.enter_async_context(_ollama(settings)), keep_alive=settings.keep_alive
            )
            engine = Engine(
                source,
                Metrics(registry),
                cache_bytes_max=settings.cache_bytes_max,
                batch_items_max=settings.batch_items_max,
                waiting_max=settings.waiting_max,
                digest_ttl_s=settings.digest_ttl_s,
            )
            stack.push_async_callback(engine.close)
            yield {"settings": settings, "engine": engine, "checks": {source.name: Check(source.ping)}}

    return daemon.build("embedd", routes, lifespan, settings, registry=registry)


def _ollama(settings: Settings) -> PeerClient:
    return PeerClient(
        "ollama",
        settings.ollama_url,
        timeouts=Timeouts(
            connect_s=settings.upstream_connect_timeout_s,
            read_s=settings.upstream_timeout_s,
            total_s=settings.upstream_timeout_s,
        ),
        limits=Limits(concurrency_max=settings.upstream_concurrency_max, waiting_max=settings.waiting_max),
    )
