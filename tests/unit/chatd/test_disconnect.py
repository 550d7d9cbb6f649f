"""A caller that goes away takes the model's work with it, and the run says so."""

import pytest

from chatd.backends import Delta, Step
from tests.unit.chatd.conftest import World
from tests.unit.chatd.leaving import leave_early

pytestmark = pytest.mark.anyio


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
