"""However callers leave, nothing of theirs stays: no slot, no task, no lease, and each has its record."""

import asyncio
import random
from collections.abc import AsyncGenerator

import pytest

from chatd.backends import Completion, Delta, FakeProvider, Step
from chatd.engine import Dispatcher, new_origin
from schemas.chat import ChatRequest
from schemas.runs import Usage
from tests.unit.chatd.conftest import World
from tests.unit.chatd.leaving import leave_early
from tests.unit.chatd.test_dispatch import alias, configure
from tests.waiting import until

pytestmark = pytest.mark.anyio

REQUEST = ChatRequest.model_validate({"model": "best", "messages": [{"role": "user", "content": "hello"}]})


class Wavering(FakeProvider):
    """Answers after some turns of the loop, or never; says how many of its calls are open."""

    def __init__(self, name: str, draw: random.Random) -> None:
        super().__init__(name, (), models=("m",))
        self.open = 0
        self._draw = draw

    async def complete(self, request: ChatRequest, *, key: int = 0) -> Completion:  # noqa: ARG002
        self.open += 1
        try:
            await self._hesitate()
            return Completion("done", "stop", Usage(prompt_tokens=1, completion_tokens=1))
        finally:
            self.open -= 1

    async def stream(self, request: ChatRequest, *, key: int = 0) -> AsyncGenerator[Delta, None]:  # noqa: ARG002
        self.open += 1
        try:
            for _ in range(3):
                await self._hesitate()
                yield Delta(content="word ")
            yield Delta(finish_reason="stop", usage=Usage(prompt_tokens=1, completion_tokens=3))
        finally:
            self.open -= 1

    async def _hesitate(self) -> None:
        for _ in range(self._draw.randrange(12)):
            await asyncio.sleep(0)
        if self._draw.random() < 0.05:
            await asyncio.Event().wait()


async def one_call(dispatcher: Dispatcher, draw: random.Random) -> None:
    """A caller that stays for some turns of the loop."""

    async def whole() -> None:
        await dispatcher.complete(dispatcher.admit(REQUEST), new_origin())

    async def streamed() -> None:
        opened = await dispatcher.open(dispatcher.admit(REQUEST), new_origin())
        try:
            async for _ in opened.deltas:
                if draw.random() < 0.2:
                    break
        finally:
            await opened.deltas.aclose()

    task = asyncio.ensure_future(whole() if draw.random() < 0.5 else streamed())
    for _ in range(draw.randrange(1, 30)):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})


@pytest.mark.parametrize("policy", ["cancel", "drain"])
async def test_ten_thousand_callers_leave_nothing_behind(world: World, policy: str) -> None:
    calls, at_once, draw = 5_000, 64, random.Random(1)
    tables = (
        alias("one/m", "two/m", more="hedge_first_token_ms = 1")
        + '[prices."one/m"]\n"/in" = 1.0\n[budgets]\nusd_a_day = 1e6\n'
        + "[breaker]\nfailures_max = 5000\n"  # on a slow machine many are too slow, and all would be refused
    )
    limits = (
        f'on_disconnect = "{policy}"\nconcurrency_max = 8\nwaiting_max = 1000\n'
        "timeouts = { total_s = 0.5 }\ntpm = 1000000000\n"
    )
    configure(world, provider=limits, rest=tables)
    providers = [Wavering("one", draw), Wavering("two", draw)]
    world.providers += providers
    app = world.app()
    async with app.router.lifespan_context(app) as state:
        assert state is not None
        dispatcher: Dispatcher = state["dispatcher"]
        before = len(asyncio.all_tasks())
        gate = asyncio.Semaphore(at_once)

        async def caller() -> None:
            async with gate:
                await one_call(dispatcher, draw)

        await asyncio.gather(*(caller() for _ in range(calls)))
        await until(lambda: len(asyncio.all_tasks()) <= before)  # drained answers end by themselves
        doors = dispatcher.doors
        assert doors.lines.in_use() == {}
        assert [one.in_flight for _, one in doors.standings.all()] == [0, 0]
        assert doors.ledger.reserved == 0
        assert [provider.open for provider in providers] == [0, 0]
    runs = world.records()
    assert len({run.run_id for run in runs}) == len(runs) == calls
    assert {run.attempts[-1].status for run in runs if run.attempts} >= {"ok", "aborted"}
    assert all(run.usage.completion_tokens is not None for run in runs)


class Slow(FakeProvider):
    """Lets its caller go before it ends."""

    async def stream(self, request: ChatRequest, *, key: int = 0) -> AsyncGenerator[Delta, None]:
        async for delta in super().stream(request, key=key):
            await asyncio.sleep(0.01)
            yield delta


@pytest.mark.parametrize("stream", [False, True])
async def test_a_drained_answer_is_taken_in_to_its_end(world: World, stream: bool) -> None:
    configure(world, provider='on_disconnect = "drain"')
    world.providers.append(Slow("one", [Step.saying("one two three four")], models=("m",)))
    await leave_early(world, model="one/m", stream=stream, after_bytes=0 if not stream else 1)
    (run,) = world.records()
    assert run.attempts[0].status == "aborted"
    assert run.output is not None
    assert run.output.content == "one two three four"
    assert run.usage == Usage(prompt_tokens=7, completion_tokens=4)
    assert "usage_estimated" not in run.ext


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_not_drained_ends_with_its_caller(world: World, stream: bool) -> None:
    configure(world, provider='on_disconnect = "cancel"')
    world.script(Step([Delta(content="some words")], hang=True), name="one", models=("m",))
    await leave_early(world, model="one/m", stream=stream, after_bytes=0 if not stream else 1)
    (run,) = world.records()
    assert run.attempts[0].status == "aborted"
    assert world.providers[0].cancelled == 1
    assert run.ext["usage_estimated"] is True
    assert run.usage.prompt_tokens


async def test_a_drained_answer_does_not_outlive_the_daemon(world: World) -> None:
    configure(world, provider='on_disconnect = "drain"')
    world.script(Step([Delta(content="a")], hang=True), name="one", models=("m",))
    app = world.app()
    async with app.router.lifespan_context(app) as state:
        assert state is not None
        dispatcher: Dispatcher = state["dispatcher"]
        request = REQUEST.model_copy(update={"model": "one/m"})
        opened = await dispatcher.open(dispatcher.admit(request), new_origin())
        await opened.deltas.aclose()
        assert world.records() == []
    (run,) = world.records()
    assert run.attempts[0].status == "aborted"
    assert world.providers[0].cancelled == 1
