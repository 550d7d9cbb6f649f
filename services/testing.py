"""For tests, ours and users': a daemon without a port, and one with a port."""

import contextlib
import secrets
import socket
from collections.abc import AsyncIterator
from typing import Final

import httpx
from starlette.types import Receive, Scope, Send

from services.daemon import Daemon
from services.errors import Unavailable

PORTS: Final = range(12_000, 32_000)
PORT_TRIES_MAX: Final = 1000
REPLICA_STEP: Final = 100
"""How far the ports of two replicas are apart when `stillhouse up` places them."""

BLOCK: Final = 1000
"""Ports that belong to one process of a test run together."""

_given: Final[set[int]] = set()
_others: Final[set[int]] = set()


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


def share_ports(number: int, of: int) -> None:
    """Leave ports to the other processes of a test run: this one has that `number`, from 0, `of` so many."""
    _others.update(port for port in PORTS if port // BLOCK % of != number)


def free_port(*, replicas: int = 1) -> int:
    """A port that nobody listens on, and that this process is not given again.

    Ports lie below those that systems hand to clients, so that no connection takes one before its server
    does. With `replicas`, the ports of further replicas (100 on, each) are free as well.
    """
    for _ in range(PORT_TRIES_MAX):
        port = secrets.choice(PORTS)
        wanted = {port + REPLICA_STEP * replica for replica in range(replicas)}
        if wanted.isdisjoint(_given | _others) and all(map(_is_free, wanted)):
            _given.update(wanted)
            return port
    raise Unavailable(f"no free port among {PORTS} after {PORT_TRIES_MAX} tries")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
