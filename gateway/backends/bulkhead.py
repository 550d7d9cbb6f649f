"""Places for calls to one replica, so that a slow one holds up only itself."""

import asyncio
import contextlib
from collections import deque

from services.errors import Overloaded


class Bulkhead:
    """At most `concurrency_max` calls at once, and `waiting_max` that wait for their turn, in order."""

    def __init__(self, peer: str, *, concurrency_max: int, waiting_max: int) -> None:
        self._peer = peer
        self._concurrency_max = concurrency_max
        self._waiting_max = waiting_max
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiting)

    def enter_now(self) -> bool:
        """Take a place if one is free and nobody waits for it."""
        if self._inside >= self._concurrency_max or self._waiting:
            return False
        self._inside += 1
        return True

    async def enter(self) -> None:
        """Take a place, or wait for one. Raises `Overloaded` when too many wait already."""
        if self.enter_now():
            return
        if len(self._waiting) >= self._waiting_max:
            raise Overloaded(
                f"{len(self._waiting)} calls wait for {self._peer}; at most {self._waiting_max} may"
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with contextlib.suppress(ValueError):  # passed over already
                    self._waiting.remove(turn)
            else:  # given the place in the same moment
                self.leave()
            raise

    def leave(self) -> None:
        """Give a place back, or on to whoever waits the longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._inside -= 1
