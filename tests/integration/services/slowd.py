"""A daemon for tests: answers after a while, or streams for a while."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Response
from fastapi.responses import StreamingResponse

from services import daemon
from services.daemon import Daemon
from services.settings import DaemonSettings
from services.telemetry import CollectorRegistry


class Settings(DaemonSettings):
    model_config = {"env_prefix": "SLOWD_"}  # noqa: RUF012 - pydantic's own convention
    port: int = 3998


def create_app(settings: Settings) -> Daemon:
    routes = daemon.router()

    @routes.get("/slow/{seconds}")
    async def slow(seconds: float) -> dict[str, float]:
        await asyncio.sleep(seconds)
        return {"slept": seconds}

    @routes.get("/stream")
    async def stream() -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            for number in range(10):
                yield b"%d\n" % number
                await asyncio.sleep(0.1)

        return StreamingResponse(chunks())

    @routes.get("/breaks")
    async def breaks() -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"half of it"
            raise RuntimeError("the other half is missing")

        return StreamingResponse(chunks())

    @asynccontextmanager
    async def lifespan(_: Daemon) -> AsyncIterator[dict[str, Any]]:
        yield {"checks": {}}

    return daemon.build("slowd", routes, lifespan, settings, registry=CollectorRegistry())


if __name__ == "__main__":
    daemon.run("slowd", Settings, create_app)
