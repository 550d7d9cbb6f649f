"""A caller that goes away before its answer is whole, spoken in ASGI: leaving is an event of its own."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import orjson

from services.testing import WithState
from tests.unit.chatd.conftest import World
from tests.waiting import until


async def leave_early(
    world: World,
    *,
    stream: bool,
    after_bytes: int,
    model: str = "fake",
    reads: bool = True,
    **extra: Any,
) -> list[MutableMapping[str, Any]]:
    """Ask, and disconnect once so much of the answer's body has come (0: once a provider was asked).

    Returns what was sent, when the run is recorded.
    """
    app = world.app()
    messages = [{"role": "user", "content": "x"}]
    body = orjson.dumps({"model": model, "messages": messages, "stream": stream, **extra})
    leave = asyncio.Event()
    sent: list[MutableMapping[str, Any]] = []
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": body, "more_body": False}
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)
        if not reads and message.get("body"):
            await asyncio.Event().wait()
        if sum(len(one.get("body", b"")) for one in sent) >= after_bytes > 0:
            leave.set()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/chat/completions",
        "raw_path": b"/v1/chat/completions",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("chatd", 80),
    }
    async with app.router.lifespan_context(app) as state:
        call = asyncio.ensure_future(WithState(app, dict(state or {}))(scope, receive, send))
        if after_bytes == 0:
            await until(lambda: bool(world.providers[0].requests))
            leave.set()
        await call
        await until(lambda: bool(world.records()))  # a drained answer ends after its caller
    return sent
