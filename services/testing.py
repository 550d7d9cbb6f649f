"""For tests, ours and users': a daemon without a port, and one with a port."""

import contextlib
import socket
from collections.abc import AsyncIterator

import httpx
from starlette.types import Receive, Scope, Send

from services.daemon import Daemon


@contextlib.asynccontextmanager
async def client_for(app: Daemon) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app in this process: its lifespan runs, no socket is opened."""
    async with app.router.lifespan_context(app) as state:
        transport = httpx.ASGITransport(app=WithState(app, dict(state or {})), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{app.name}") as client:
            yield client


class WithState:
    """Hands the lifespan's state to every request, as a server does."""

    def __init__(self, app: Daemon, state: dict[str, object]) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, "state": dict(self._state)}, receive, send)


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
