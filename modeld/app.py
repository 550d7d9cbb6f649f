"""The composition root: the only place where parts of `modeld` are put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TypedDict

from modeld.backends import Shelf, installed_shelf
from modeld.engine import Engine, Limits, Metrics
from modeld.routes import OllamaWire, routes
from modeld.settings import Settings
from services import daemon
from services.health import Check
from services.tasks import task_set
from services.telemetry import CollectorRegistry


class State(TypedDict):
    settings: Settings
    engine: Engine
    checks: dict[str, Check]


def create_app(settings: Settings, *, shelf: Shelf | None = None) -> daemon.Daemon:
    """Build the daemon. `shelf` is what it offers; the installed models unless given."""
    registry = CollectorRegistry()
    offers = shelf or installed_shelf(
        context_tokens=settings.context_tokens, slots=settings.chat_slots, threads=settings.chat_threads
    )
    metrics = Metrics(registry)
    limits = Limits(
        embed_threads=settings.embed_threads,
        keep_alive_s=settings.keep_alive_s,
        embed_queue_max=settings.embed_queue_max,
        embed_inputs_max=settings.embed_inputs_max,
        batch_items_max=settings.batch_items_max,
        batch_tokens_max=settings.batch_tokens_max,
        chat_slots=settings.chat_slots,
        chat_queue_max=settings.chat_queue_max,
    )

    @asynccontextmanager
    async def lifespan(_: daemon.Daemon) -> AsyncIterator[State]:
        async with task_set() as tasks:
            engine = Engine(offers, limits, tasks, metrics)
            tasks.start(engine.warm_up(), name="warm up")
            tasks.start(engine.sweep(), name="unload idle models")
            checks = {
                card.name: Check(partial(engine.ready, card.name), required=card.capability == "embedding")
                for card in engine.known()
            }
            try:
                yield {"settings": settings, "engine": engine, "checks": checks}
            finally:
                await engine.close()

    app = daemon.build("modeld", routes, lifespan, settings, registry=registry, trusted=False)
    app.surround(OllamaWire)  # outermost: it also speaks for the kit's own refusals
    return app
