"""Threads for checks that are too long for the event loop, with a bound on how many wait."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from services.errors import Overloaded

Result = TypeVar("Result")


class Threads:
    """Runs work in threads. Raises `Overloaded` when too much is waiting."""

    def __init__(self, *, threads: int, waiting_max: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="check")
        self._threads = threads
        self._waiting_max = waiting_max
        self._pending = 0

    async def run(self, work: Callable[[], Result]) -> Result:
        if self._pending >= self._threads + self._waiting_max:
            waiting = self._pending - self._threads
            raise Overloaded(
                f"{waiting} checks are waiting; at most {self._waiting_max} may", code="queue_full"
            )
        self._pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self._pending -= 1

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
