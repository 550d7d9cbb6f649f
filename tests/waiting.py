"""Waiting, in tests, for what tells nobody that it has happened."""

import asyncio
from collections.abc import Callable
from typing import Final

PATIENCE_S: Final = 30.0
"""Far more than anything takes, also on a machine that is busy with other tests."""


async def until(true: Callable[[], object]) -> None:
    """Wait for something to become so. Raises `TimeoutError` when it does not."""
    async with asyncio.timeout(PATIENCE_S):
        while not true():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)
