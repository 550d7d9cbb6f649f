"""Holds requests for a daemon that is gone just now: most often it is being restarted, and soon back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from services.errors import Draining, PlatformError
from services.tasks import TaskSet

LOOK_S: Final = 0.05
LOOK_FOR_NOBODY_S: Final = 0.5


class Hold:
    """Lets requests wait that nobody has done anything of, until the daemon is back.

    None waits beyond `wait_s` after the daemon was gone, or `restart_s` where it said before that it would
    stop, as it does when it is replaced: from then on its callers are told at once. While it is still there,
    and only says that it is about to stop, each waits for `wait_s` at most. No more than `held_max` wait, and
    nobody does while it is `silent`: that is no restart.
    """

    def __init__(
        self,
        ping: Callable[[], Awaitable[None]],
        *,
        silent: Callable[[], bool] = lambda: False,
        wait_s: float,
        restart_s: float = 0.0,
        held_max: int,
    ) -> None:
        """`restart_s` counts where it is longer than `wait_s`."""
        self._ping = ping
        self._silent = silent
        self._wait_s = wait_s
        self._restart_s = max(wait_s, restart_s)
        self._held_max = held_max
        self._held = 0
        self._back: asyncio.Future[bool] | None = None
        self._tasks = TaskSet()
        self.announced = False
        """It said that it would stop, and was not seen well since: requests had better not go there. As long
        as this holds, somebody looks."""
        self.down_since: float | None = None
        """By the loop's clock."""

    def heard(self) -> None:
        """The daemon has answered a request."""
        self.down_since = None

    def turn(self) -> "Turn":
        """For one request."""
        return Turn(self)

    async def back(self, began: float) -> bool:
        """Wait, as one that has waited since `began`. Whether the daemon is there, and worth another try."""
        if self._left_s(began) <= 0 or self._held >= self._held_max or self._silent():
            return False
        self._held += 1
        try:
            return await self._wait(began)
        finally:
            self._held -= 1

    async def _wait(self, began: float) -> bool:
        back = self._looked_for()
        while (left_s := self._left_s(began)) > 0:
            try:
                async with asyncio.timeout(left_s):
                    return await asyncio.shield(back)
            except TimeoutError:
                continue  # it may have gone only since
        return False

    def give_up(self) -> None:
        """Tell all who wait that it will not be back soon."""
        if self._back is not None:
            self._back.set_result(False)
            self._back = None

    def _left_s(self, began: float) -> float:
        if self.down_since is None:
            until = began + self._wait_s
        else:
            until = self.down_since + (self._restart_s if self.announced else self._wait_s)
        return until - asyncio.get_running_loop().time()

    def _looked_for(self) -> asyncio.Future[bool]:
        """Whether the daemon is there again, once that is known. One looks for all who wait."""
        if self._back is None:
            self._back = asyncio.get_running_loop().create_future()
            self._tasks.start(self._look(self._back), name="look for a daemon")
        return self._back

    async def _look(self, back: asyncio.Future[bool]) -> None:
        """Until it is there, also when nobody waits any more: when it is gone the next time, that is news."""
        try:
            while not back.done():
                # At first too: who finds it there, and is refused, comes again.
                await asyncio.sleep(LOOK_S if self._held else LOOK_FOR_NOBODY_S)
                if await self._is_there() and not back.done():
                    back.set_result(True)
                    if not self._held:
                        self.heard()
        finally:
            self.announced = False
            if self._back is back:
                self._back = None

    async def _is_there(self) -> bool:
        """A look that fails tells that the daemon was gone when it began, however long it took."""
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._wait_s):
                await self._ping()
        except Draining:
            self.announced = True
            return False
        except (PlatformError, TimeoutError):
            if self.down_since is None:
                self.down_since = began
            return False
        return True

    async def close(self) -> None:
        await self._tasks.close()


class Turn:
    """What one request waits, in one go or in several: all of it is bounded."""

    __slots__ = ("_began", "_hold")

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._began: float | None = None

    async def back(self) -> bool:
        """Wait. Whether the daemon is there again, so that it is worth another try."""
        if self._began is None:
            self._began = asyncio.get_running_loop().time()
        return await self._hold.back(self._began)
