"""Puts what was written on the medium: those who wait for the same collection share one flush.

With a flush for each, writers on a slow disk would queue up behind one another without end. As it is, each
waits for two flushes at most, however many they are.
"""

import asyncio

from services.errors import PlatformError
from services.tasks import TaskSet
from vectord.engine.opened import Opened
from vectord.engine.runner import Runner

Flush = asyncio.Task[PlatformError | None]


class Flushes:
    def __init__(self, runner: Runner, tasks: TaskSet) -> None:
        self._runner = runner
        self._tasks = tasks
        self._next: dict[str, Flush] = {}
        """By collection, the flush that has not begun yet."""

    async def flushed(self, opened: Opened) -> None:
        """Return when a flush has ended that began after the call. Raises what the store raised."""
        flush = self._next.get(opened.name)
        if flush is None:
            flush = self._tasks.start(self._flush(opened), name="flush")
            self._next[opened.name] = flush
        failure = await asyncio.shield(flush)
        if failure is not None:
            raise failure

    async def _flush(self, opened: Opened) -> PlatformError | None:
        """Returns why it failed: nobody may be left to be told."""
        with opened.in_use():
            try:
                await opened.writer.acquire()  # in turn: whoever comes to write meanwhile goes first
            finally:
                del self._next[opened.name]
            try:
                await self._runner.run(opened.shard.flush)
            except PlatformError as error:
                return error
            finally:
                opened.writer.release()
        return None
