"""A bounded number of places, and a bounded queue before them."""

import asyncio

from modeld.backends import ServerBusy


class Admission:
    """Lets `places` callers in and `queue_max` wait; the next one is told that the server is busy."""

    def __init__(self, *, places: int, queue_max: int) -> None:
        self._places = asyncio.Semaphore(places)
        self._queue_max = queue_max
        self.waiting = 0

    async def enter(self) -> None:
        if self._places.locked() and self.waiting >= self._queue_max:
            raise ServerBusy(
                f"server busy: {self.waiting} requests are waiting, at most {self._queue_max} may"
            )
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1

    def leave(self) -> None:
        self._places.release()
