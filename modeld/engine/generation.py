"""One answer in the making: a blocking generation on a thread, read piece by piece on the event loop."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor

from modeld.backends import Emit, Report


class Generation:
    """Iterate for the pieces; afterwards `report` tells how it went. `cancel` stops it at the next token.

    `load_ns` is how long the caller waited for the model, `pieces` are bounded by the model's context.
    """

    def __init__(
        self,
        work: Callable[[Emit], Report],
        executor: Executor,
        finished: Callable[[], None],
        *,
        load_ns: int,
    ) -> None:
        self.load_ns = load_ns
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()
        self._unwanted = threading.Event()
        self._first: str | None = None
        self._finished = finished
        self._future = self._loop.run_in_executor(executor, work, self._emit)
        self._future.add_done_callback(self._done)

    @property
    def report(self) -> Report:
        return self._future.result()

    def cancel(self) -> None:
        """Nobody wants the rest. The slot is free again as soon as the thread has noticed."""
        self._unwanted.set()

    async def begin(self) -> None:
        """Wait for the first piece. Raises what went wrong before it, so that it can still have a status."""
        try:
            self._first = await self._pieces.get()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if self._first is None:
            self._future.result()

    async def __aiter__(self) -> AsyncIterator[str]:
        try:
            piece = self._first
            while piece is not None:
                if piece:
                    yield piece
                piece = await self._pieces.get()
            self._future.result()
        finally:
            self.cancel()

    def _emit(self, piece: str) -> bool:
        self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)
        return self._unwanted.is_set()

    def _done(self, future: asyncio.Future[Report]) -> None:
        if not future.cancelled():
            future.exception()  # seen: an answer that nobody reads any more may fail in silence
        self._pieces.put_nowait(None)
        self._finished()
