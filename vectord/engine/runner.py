"""Blocking store calls, off the event loop: a few at a time, a bounded number waiting."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import structlog

from services.errors import Conflict, Overloaded, PlatformError, Unavailable
from vectord.backends import EngineUnreachable, StoreError, StoreFull, StoreLost
from vectord.backends.store import ShardTaken
from vectord.engine.disk import disk_full, refused

log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class Runner:
    def __init__(self, *, threads: int, waiting_max: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="store")
        self._under_way = 0
        self._threads = threads
        self._waiting_max = waiting_max

    @property
    def waiting(self) -> int:
        """Calls that wait for a thread."""
        return max(0, self._under_way - self._threads)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `work` on a thread. What a store or the disk raises becomes what the caller is told."""
        if self._under_way - self._threads >= self._waiting_max:
            raise Overloaded(f"{self.waiting} store calls are waiting; at most {self._waiting_max} may")
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(*args, **kwargs))
        except StoreError as error:
            raise told(error) from error
        except OSError as error:
            raise refused(error) from error
        finally:
            self._under_way -= 1

    def close(self) -> None:
        """Wait for the calls under way."""
        self._pool.shutdown(wait=True)


def told(error: StoreError) -> PlatformError:
    """What a caller is told of a store's failure, whose own words are for the log."""
    if isinstance(error, EngineUnreachable):
        return Unavailable(str(error))
    if isinstance(error, ShardTaken):
        return Conflict(str(error), code="shard_taken")
    if isinstance(error, StoreFull):
        log.warning("disk is full", reason=str(error))
        return disk_full()
    if isinstance(error, StoreLost):
        return Unavailable(
            "the process that holds the collection was lost, and is started again; what was acknowledged is"
            " kept, send this request again",
            code="store_lost",
        )
    log.error("store failed", exc_info=error)
    return PlatformError("the store failed; the log says why", code="store_failed")
