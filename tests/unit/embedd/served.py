"""embedd on a real port in the test's own event loop, with a backend that waits for the test."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import cast

import uvicorn

from embedd.app import create_app
from embedd.backends import Computed, FakeBackend
from embedd.engine import PROBES, Engine
from embedd.settings import Settings
from services.daemon import Daemon
from services.protocol import EnvelopeProtocol
from services.testing import free_port
from tests.waiting import until

PATIENCE_S = 30.0


class Gated(FakeBackend):
    """Answers lists with `slow` in them only when the test opens the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.waiting = 0
        self.cancelled = 0

    async def embed(self, model: str, texts: Sequence[str], *, truncate: bool) -> Computed:
        if any("slow" in text for text in texts) and not set(texts) <= set(PROBES):
            self.waiting += 1
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            finally:
                self.waiting -= 1
        return await super().embed(model, texts, truncate=truncate)


@dataclass(frozen=True)
class Served:
    app: Daemon
    engine: Engine
    url: str
    port: int

    @property
    def idle(self) -> bool:
        pool = self.engine._pool
        busy = any(lane.in_flight for lane in pool.lanes._lanes)
        return not (busy or pool._waiting or pool._queues or self.engine._flights or self.app.drain.in_flight)


@asynccontextmanager
async def served(backend: FakeBackend, settings: Settings | None = None) -> AsyncIterator[Served]:
    port = free_port()
    settings = settings or Settings(port=port)
    app = create_app(settings, backends=[backend])
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            port=port,
            http=cast("type[asyncio.Protocol]", partial(EnvelopeProtocol, direct=app.direct)),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
        )
    )
    running = asyncio.ensure_future(server.serve())
    await until(lambda: server.started)
    try:
        yield Served(app, server.lifespan.state["engine"], f"http://127.0.0.1:{port}", port)
    finally:
        server.should_exit = True
        await running
