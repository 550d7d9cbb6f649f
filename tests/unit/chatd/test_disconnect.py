"""A caller that goes away takes the model's work with it, and the run says so."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import orjson
import pytest

from chatd.backends import Delta, Step
from services.testing import WithState
from tests.unit.chatd.conftest import World

pytestmark = pytest.mark.anyio


async def leave_early(
    world: World, *, stream: bool, after_bytes: int, reads: bool = True, **extra: Any
) -> list[MutableMapping[str, Any]]:
    """Ask, and disconnect once `after_bytes` of the answer's body have come; returns what was sent."""
    app = world.app()
    messages = [{"role": "user", "content": "x"}]
    body = orjson.dumps({"model": "fake", "messages": messages, "stream": stream, **extra})
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
            while not world.providers[0].requests:  # noqa: ASYNC110 - a fake tells nobody
                await asyncio.sleep(0)
            leave.set()
        await call
    return sent


@pytest.mark.parametrize("stream", [True, False])
async def test_before_the_first_token(world: World, stream: bool) -> None:
    provider = world.script(Step(hang=True))
    sent = await leave_early(world, stream=stream, after_bytes=0)
    assert sent[0]["status"] == 499
    assert provider.cancelled == 1
    (run,) = world.records()
    assert (run.attempts[0].status, run.output) == ("aborted", None)


@pytest.mark.parametrize("stream", [True, False])
async def test_while_an_answer_is_held_back(world: World, stream: bool) -> None:
    provider = world.script(Step([Delta(content='{"a":')], hang=True))
    sent = await leave_early(world, stream=stream, after_bytes=0, validate={"kind": "fill"})
    assert sent[0]["status"] == 499
    assert provider.cancelled == 1
    assert world.validators.requests == []
    (run,) = world.records()
    assert run.attempts[0].status == "aborted"


async def test_in_the_middle_of_a_stream(world: World) -> None:
    provider = world.script(Step([Delta(content="a"), Delta(content="b")], hang=True))
    sent = await leave_early(world, stream=True, after_bytes=300)
    assert provider.cancelled == 1
    assert b"[DONE]" not in b"".join(one.get("body", b"") for one in sent)
    (run,) = world.records()
    assert run.attempts[0].status == "aborted"
    assert run.output is not None
    assert run.output.content == "ab"


async def test_a_caller_that_does_not_read_is_dropped(world: World) -> None:
    world.settings = {"write_timeout_s": 0.05}
    provider = world.script(Step([Delta(content="a"), Delta(content="b")], hang=True))
    await leave_early(world, stream=True, after_bytes=10_000, reads=False)
    assert provider.cancelled == 1
    (run,) = world.records()
    assert run.attempts[0].status == "aborted"
