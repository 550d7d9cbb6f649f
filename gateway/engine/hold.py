"""Holds requests for a daemon that is gone just now: most often it is being restarted, and soon back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from services.errors import PlatformError
from services.tasks import TaskSet

LOOK_S: Final = 0.05


class Hold:
    """Lets requests wait that nobody has done anything of, until the daemon is back.

    None waits beyond `wait_s` after the daemon went away: from then on its callers are told at once. At most
    `held_max` wait.
    """

    def __init__(self, ping: Callable[[], Awaitable[None]], *, wait_s: float, held_max: int) -> None:
        self._ping = ping
        self._wait_s = wait_s
        self._held_max = held_max
        self._held = 0
        self._back: asyncio.Future[None] | None = None
        self._tasks = TaskSet()
        self.down_since: float | None = None
        """By the loop's clock. Whoever hears from the daemon sets it to None."""

    async def back(self) -> bool:
        """Wait. Whether the daemon is there again, so that it is worth another try."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self.down_since is None:
            self.down_since = now
        left_s = self.down_since + self._wait_s - now
        if left_s <= 0 or self._held >= self._held_max:
            return False
        if self._back is None:
            self._back = loop.create_future()
            self._tasks.start(self._look(self._back), name="look for a daemon")
        self._held += 1
        try:
            async with asyncio.timeout(left_s):
                await asyncio.shield(self._back)
        except TimeoutError:
            return False
        finally:
            self._held -= 1
        return True

    async def _look(self, back: asyncio.Future[None]) -> None:
        """One looks for all who wait."""
        try:
            while self._held:
                await asyncio.sleep(LOOK_S)
                try:
                    await self._ping()
                except (PlatformError, TimeoutError):
                    continue
                back.set_result(None)
                return
        finally:
            self._back = None

    async def close(self) -> None:
        await self._tasks.close()
