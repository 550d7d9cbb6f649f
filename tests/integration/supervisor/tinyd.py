"""A real daemon, as small as the kit allows, for the supervisor to run: `python -m tinyd`."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CollectorRegistry
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services import daemon
from services.errors import Unavailable
from services.health import Check
from services.settings import DaemonSettings

# The supervisor tells a daemon, and no other, where to listen: that is who we are.
PREFIX = "TWO_" if "TWO_HOST" in os.environ else "ONE_"


class Settings(DaemonSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX)

    port: int = Field(ge=1)
    lacks: str | None = Field(None, description="A dependency to report as missing.")
    exits: int | None = Field(None, description="A status to exit with at once.")


def create_app(settings: Settings) -> daemon.Daemon:
    if settings.exits is not None:
        raise SystemExit(settings.exits)
    routes = daemon.router()

    @routes.get("/environment")
    async def environment() -> dict[str, str]:
        return dict(os.environ)

    @routes.get("/slow")
    async def slow() -> dict[str, str]:
        await asyncio.sleep(1.0)
        return {"status": "done"}

    @routes.get("/shout")
    async def shout(lines: int, length: int) -> dict[str, str]:
        for _ in range(lines):
            sys.stdout.write("x" * length + "\n")
        sys.stdout.flush()
        return {"status": "done"}

    @routes.get("/fail")
    async def fail() -> dict[str, str]:
        raise Unavailable("as asked")

    @asynccontextmanager
    async def lifespan(_: daemon.Daemon) -> AsyncIterator[Mapping[str, Any]]:
        async def probe() -> None:
            if settings.lacks is not None:
                raise Unavailable(f"no {settings.lacks} here")

        yield {"checks": {"dependency": Check(probe)}}

    # Not trusted: the tests ask it themselves, and do not know the secret of its supervisor.
    return daemon.build("tinyd", routes, lifespan, settings, registry=CollectorRegistry(), trusted=False)


if __name__ == "__main__":
    daemon.run("tinyd", Settings, create_app)
