"""Work that is worth doing only while the client is still there."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, ClassVar, TypeVar

from starlette.types import Receive

from schemas.errors import ErrorType
from services.errors import PlatformError
from services.tasks import task_set

Result = TypeVar("Result")


class ClientGone(PlatformError):
    """The client closed the connection before its answer was there. Only logs and metrics see this."""

    status = 499
    type: ClassVar[ErrorType] = "invalid_request_error"
    code = "client_gone"


@asynccontextmanager
async def while_connected(receive: Receive) -> AsyncIterator[None]:
    """Cancel the block as soon as the client leaves, and raise `ClientGone` from it.

    The request's body must have been read before: `receive` is listened to for nothing but the end.
    """
    block = asyncio.current_task()
    assert block is not None
    before = block.cancelling()
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        block.cancel()

    try:
        async with task_set() as tasks:
            tasks.start(watch(), name="watch for disconnect")
            yield
    except asyncio.CancelledError:
        if gone and block.uncancel() <= before:
            raise ClientGone("request canceled") from None
        raise


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, done while the client is there."""
    async with while_connected(receive):
        return await work
