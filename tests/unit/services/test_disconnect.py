"""Work ends with the client's connection, and with nothing else that looks like it."""

import asyncio

import pytest
from starlette.types import Message

from services.disconnect import ClientGone, unless_gone, while_connected

pytestmark = pytest.mark.anyio


class Client:
    """The receiving side of a request whose body was read."""

    def __init__(self) -> None:
        self.leaves = asyncio.Event()

    async def receive(self) -> Message:
        await self.leaves.wait()
        return {"type": "http.disconnect"}


async def test_work_is_done_while_the_client_is_there() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 1

    assert await unless_gone(Client().receive, work()) == 1


async def test_a_client_that_leaves_cancels_the_work() -> None:
    client = Client()
    cancelled = asyncio.Event()

    async def work() -> None:
        client.leaves.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(ClientGone):
        await unless_gone(client.receive, work())
    assert cancelled.is_set()
    await asyncio.sleep(0)  # nothing of the cancellation is left to strike here


async def test_a_client_that_leaves_as_the_work_ends_is_gone_too() -> None:
    client = Client()
    seen = asyncio.Event()

    async def receive() -> Message:
        message = await client.receive()
        seen.set()
        return message

    async def work() -> None:
        await asyncio.sleep(0)  # the watch listens now
        client.leaves.set()
        await seen.wait()

    with pytest.raises(ClientGone):
        await unless_gone(receive, work())
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    async def serve() -> None:
        async with while_connected(Client().receive):
            await asyncio.Event().wait()

    task = asyncio.create_task(serve())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
