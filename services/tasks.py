"""Background work that somebody holds, so that shutdown can wait for it or stop it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import structlog

log = structlog.get_logger(__name__)


class TaskSet:
    """Tasks of one owner. A task that dies says so in the log; leaving the context cancels the rest."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background task failed", task=task.get_name(), exc_info=error)

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def task_set() -> AsyncIterator[TaskSet]:
    """Hold background tasks for the length of a block (usually a lifespan)."""
    tasks = TaskSet()
    try:
        yield tasks
    finally:
        await tasks.close()


async def every(interval_s: float, work: Callable[[], Awaitable[None]], *, name: str) -> None:
    """Call `work` at an interval, for ever. A failure is logged and the next turn tries again."""
    while True:
        await asyncio.sleep(interval_s)
        try:
            await work()
        except Exception:
            log.exception("periodic work failed", work=name)
