"""Blocking store calls, off the event loop: a few at a time, a bounded number waiting."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import structlog

from services.errors import Conflict, Overloaded, PlatformError, Unavailable
from vectord.backends import EngineUnreachable, StoreError
from vectord.backends.store import ShardTaken

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
        """Call `work` on a thread. A store's failure is logged, and told as a 500 without its words."""
        if self._under_way - self._threads >= self._waiting_max:
            raise Overloaded(f"{self.waiting} store calls are waiting; at most {self._waiting_max} may")
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(*args, **kwargs))
        except EngineUnreachable as error:
            raise Unavailable(str(error)) from error
        except ShardTaken as error:
            raise Conflict(str(error), code="shard_taken") from error
        except StoreError as error:
            log.exception("store failed")
            raise PlatformError("the store failed; the log says why", code="store_failed") from error
        except OSError as error:
            log.exception("disk refused")
            raise Unavailable(f"the disk refuses: {error.strerror}", code="storage_failed") from error
        finally:
            self._under_way -= 1

    def close(self) -> None:
        """Wait for the calls under way."""
        self._pool.shutdown(wait=True)
