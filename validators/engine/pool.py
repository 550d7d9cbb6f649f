"""What keeps long work from others: threads for long checks, and turns for batches of short ones."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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


class Turns:
    """Lets batches work on the event loop by turns, each for a moment, and only so many at a time."""

    def __init__(self, *, batches_max: int) -> None:
        self._batches_max = batches_max
        self._batches = 0
        self._turn = asyncio.Lock()

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of the places for batches. Raises `Overloaded` when all are taken."""
        if self._batches >= self._batches_max:
            raise Overloaded(
                f"{self._batches} batches are being worked on; at most {self._batches_max} may",
                code="too_many_batches",
            )
        self._batches += 1
        try:
            yield
        finally:
            self._batches -= 1

    def turn(self) -> asyncio.Lock:
        """To be held while a batch works without a pause."""
        return self._turn
