"""A client that leaves frees its slot: in the queue, before its answer, in the middle of a stream."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from modeld.app import create_app
from modeld.backends import FakeChat, GenerationFailed, Report, fake_shelf
from modeld.settings import Settings
from services.daemon import Daemon
from services.telemetry import render
from tests.waiting import until

pytestmark = pytest.mark.anyio

BODY: dict[str, Any] = {"model": "smollm2:135m", "messages": [{"role": "user", "content": "one two three"}]}
PATIENCE_S = 20.0


class Caller:
    """One request, spoken in ASGI, so that leaving is an event of its own."""

    def __init__(self, app: Daemon, state: dict[str, Any], body: dict[str, Any]) -> None:
        self.status = 0
        self.sent = b""
        self.heard = asyncio.Event()
        self._left = asyncio.Event()
        self._body: bytes | None = json.dumps(body).encode()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "path": "/api/chat",
            "raw_path": b"/api/chat",
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [],
            "server": ("modeld", 80),
            "client": ("test", 1),
            "state": dict(state),
        }
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    def leave(self) -> None:
        self._left.set()

    async def _receive(self) -> Any:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.sent += message.get("body", b"")
        if self.sent:
            self.heard.set()


@asynccontextmanager
async def serving(chat: FakeChat, **options: Any) -> AsyncIterator[tuple[Daemon, dict[str, Any]]]:
    app = create_app(Settings(chat_slots=1, **options), shelf=fake_shelf(chat=chat))
    async with app.router.lifespan_context(app) as state:
        held = dict(state or {})
        known = {card.name for card in held["engine"].known()}
        await until(lambda: known <= {card.name for card, _ in held["engine"].usable()})
        yield app, held


async def answered(app: Daemon, state: dict[str, Any]) -> None:
    """The only slot serves again."""
    caller = Caller(app, state, BODY)
    async with asyncio.timeout(PATIENCE_S):
        await caller.task
    assert caller.status == 200
    assert b'"done":true' in caller.sent


async def test_in_the_middle_of_a_stream() -> None:
    chat = FakeChat(hold=True)
    async with serving(chat) as (app, state):
        caller = Caller(app, state, BODY)
        await asyncio.wait_for(caller.heard.wait(), PATIENCE_S)
        caller.leave()
        await asyncio.wait_for(caller.task, PATIENCE_S)
        await until(lambda: chat.stopped == 1 and chat.running == 0)
        chat.go.set()
        await answered(app, state)


async def test_while_an_answer_in_one_object_is_made() -> None:
    chat = FakeChat(hold=True)
    async with serving(chat) as (app, state):
        caller = Caller(app, state, {**BODY, "stream": False})
        await until(lambda: chat.running == 1)
        caller.leave()
        await asyncio.wait_for(caller.task, PATIENCE_S)
        assert (caller.status, json.loads(caller.sent)) == (499, {"error": "request canceled"})
        await until(lambda: chat.stopped == 1 and chat.running == 0)
        chat.go.set()
        await answered(app, state)


async def test_while_waiting_in_the_queue() -> None:
    chat = FakeChat(hold=True)
    async with serving(chat, chat_queue_max=1) as (app, state):
        first = Caller(app, state, BODY)
        await until(lambda: chat.running == 1)
        second = Caller(app, state, BODY)
        await until(lambda: b'kind="chat"} 1.0' in _metrics(app))
        second.leave()
        await asyncio.wait_for(second.task, PATIENCE_S)
        assert second.status == 499
        chat.go.set()
        await asyncio.wait_for(first.task, PATIENCE_S)
        assert chat.stopped == 0
        await answered(app, state)


def _metrics(app: Daemon) -> bytes:
    return render(app.registry)


class Breaking(FakeChat):
    """Fails after its first word."""

    def generate(self, *request: Any) -> Report:
        emit = request[-1]
        emit("one")
        raise GenerationFailed("the model lost its thread")


async def test_a_failure_after_the_first_line_is_one_last_line_and_no_done() -> None:
    async with serving(Breaking()) as (app, state):
        caller = Caller(app, state, BODY)
        await asyncio.wait_for(caller.task, PATIENCE_S)
        lines = [json.loads(line) for line in caller.sent.splitlines()]
        assert caller.status == 200
        assert lines[0]["message"]["content"] == "one"
        assert lines[1:] == [{"error": "the model lost its thread"}]
