"""Worker processes for one run of a stage. Small work needs none and is done where it is asked for."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from types import TracebackType
from typing import Final, Self, TypeVar

from services.errors import Unavailable

Task = TypeVar("Task")
Result = TypeVar("Result")

AHEAD: Final = 2
"""Tasks for each process that wait in its queue, so that none runs dry."""


class Pool:
    """Calls functions in `processes` processes, or in this one when that is 1.

    Processes are started by the first call that has use for them, and end with the block or with us.
    """

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """The results in the order of the tasks, as they become known.

        `function` is one of a module, and tasks and results can be pickled. Raises what the function
        raises, and `Unavailable` when a process died.
        """
        if self.processes == 1 or len(tasks) < 2:
            yield from map(function, tasks)
            return
        executor = self._started()
        waiting: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                waiting.append(executor.submit(function, task))
                if len(waiting) > AHEAD * self.processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise _died() from None
        finally:
            for future in waiting:
                future.cancel()

    def call(self, function: Callable[[Task], Result], task: Task) -> Result:
        """One call, in another process where there may be some, so that it does not hold up this one."""
        if self.processes == 1:
            return function(task)
        try:
            return self._started().submit(function, task).result()
        except BrokenProcessPool:
            raise _died() from None

    def _started(self) -> ProcessPoolExecutor:
        if self._executor is None:
            # Not forked: this process has threads. Not from a fork server: that would be one process more.
            spawn = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(self.processes, spawn, initializer=_prepare)
        return self._executor


def _died() -> Unavailable:
    return Unavailable(
        "a process that did a part of the work died, of too little memory perhaps; start the job again,"
        " what is done stays done",
        code="worker_died",
    )


def _prepare() -> None:
    """Leave signals to the parent, and end when it is gone, however it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def _follow(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
