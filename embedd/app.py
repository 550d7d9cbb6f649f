"""The composition root: the only place where the parts of `embedd` are put together."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TypedDict

from embedd.backends import Backend, OllamaBackend, OpenAIBackend, SharedCache, Transport, ValkeyCache
from embedd.engine import Engine, FragmentCache, Limits, Metrics, Pool, Spans, VectorCache, WarmFile
from embedd.routes import HopDoor, hop_route, routes
from embedd.settings import Settings
from services import daemon
from services.daemon import Daemon
from services.errors import Unavailable
from services.h1 import H1Client
from services.health import Check
from services.tasks import every, task_set
from services.telemetry import CollectorRegistry


class State(TypedDict):
    settings: Settings
    engine: Engine
    checks: dict[str, Check]


def create_app(
    settings: Settings, *, backends: Sequence[Backend] | None = None, shared: SharedCache | None = None
) -> Daemon:
    registry = CollectorRegistry()

    @asynccontextmanager
    async def lifespan(app: Daemon) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            metrics = Metrics(registry)
            pool = Pool(
                backends or await _open_backends(settings, stack),
                metrics,
                _limits(settings),
                Spans(app.tracer),
            )
            cache = VectorCache(
                bytes_max=settings.cache_bytes_max,
                policy=settings.cache_policy,
                ttl_s=settings.cache_ttl_s,
                on_evict=metrics.evictions.inc,
            )
            second = shared or await _open_shared(settings, stack, registry)
            engine = Engine(
                pool,
                cache,
                FragmentCache(bytes_max=settings.fragment_bytes_max),
                metrics,
                shared=second,
                options=settings.ollama_options,
                prefixes=settings.prefixes,
            )
            stack.push_async_callback(engine.close)
            await _keep_warm(settings, cache, stack)
            yield {"settings": settings, "engine": engine, "checks": _checks(pool, second)}

    app = daemon.build("embedd", routes, lifespan, settings, registry=registry, direct=HopDoor)
    app.router.routes.append(hop_route())
    return app


def _limits(settings: Settings) -> Limits:
    return Limits(
        batch_items_max=settings.batch_items_max,
        batch_tokens_max=settings.batch_tokens_max,
        concurrency_max=settings.upstream_concurrency_max,
        waiting_max=settings.waiting_max,
        tries_max=settings.tries_max,
        busy_pause_s=settings.busy_pause_s,
        probe_interval_s=settings.probe_interval_s,
        look_timeout_s=settings.look_timeout_s,
        digest_ttl_s=settings.digest_ttl_s,
    )


async def _open_backends(settings: Settings, stack: AsyncExitStack) -> list[Backend]:
    async def transport(url: str, peer: str, *headers: tuple[bytes, bytes]) -> Transport:
        client = H1Client(url, connect_timeout_s=settings.upstream_connect_timeout_s)
        await stack.enter_async_context(client)
        return Transport(client, peer=peer, timeout_s=settings.upstream_timeout_s, headers=headers)

    backends: list[Backend] = [
        OllamaBackend(
            await transport(url, "ollama"), keep_alive=settings.keep_alive, options=settings.ollama_options
        )
        for url in settings.ollama
    ]
    if settings.openai_url is not None:
        key = settings.openai_api_key
        headers = [(b"authorization", f"Bearer {key.get_secret_value()}".encode())] if key is not None else []
        backends.append(OpenAIBackend(await transport(settings.openai_url, "openai", *headers)))
    return backends


async def _open_shared(
    settings: Settings, stack: AsyncExitStack, registry: CollectorRegistry
) -> SharedCache | None:
    if settings.l2_url is None:
        return None
    shared = ValkeyCache(
        settings.l2_url.get_secret_value(),
        registry,
        timeout_s=settings.l2_timeout_s,
        ttl_s=settings.l2_ttl_s,
        pause_s=settings.l2_pause_s,
    )
    stack.push_async_callback(shared.close)
    tasks = await stack.enter_async_context(task_set())
    tasks.start(shared.write(), name="write to the shared cache")
    return shared


async def _keep_warm(settings: Settings, cache: VectorCache, stack: AsyncExitStack) -> None:
    """Read the hottest vectors now; write them at an interval and when stopping."""
    path = settings.data / "embedd" / f"warm-{settings.port}.bin"
    file = WarmFile(path, bytes_max=settings.warm_bytes_max)
    await asyncio.to_thread(file.load_into, cache)

    async def save() -> None:
        await asyncio.to_thread(file.save, cache.snapshot())

    stack.push_async_callback(save)
    tasks = await stack.enter_async_context(task_set())
    tasks.start(every(settings.warm_interval_s, save, name="write the warm file"), name="warm file")


def _checks(pool: Pool, shared: SharedCache | None) -> dict[str, Check]:
    """One backend that answers is enough to be ready; each that does not is told of."""
    lanes = pool.lanes

    async def in_use(name: str) -> None:
        if (problem := lanes.problems[name]) is not None:
            raise Unavailable(problem)

    checks = {"backends": Check(lanes.ping)}
    if len(lanes.problems) > 1:
        checks |= {name: Check(partial(in_use, name), required=False) for name in lanes.problems}
    if shared is not None:
        checks["shared cache"] = Check(shared.ping, required=False)
    return checks
