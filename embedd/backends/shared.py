"""A second cache that replicas share, in Valkey or Redis: asked for what ours lacks, not waited for long."""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from services.errors import Unavailable

log = structlog.get_logger(__name__)

KEY_PREFIX: Final = b"stillhouse:embedd:1:"
WRITES_WAITING_MAX: Final = 4096
WRITES_A_CALL: Final = 256
READS_A_CALL: Final = 128
"""Few enough that their vectors come within the short timeout."""

CONNECTIONS_MAX: Final = 32


class SharedCache(Protocol):
    """Values by key. It may forget anything at any time, and being down is no reason to fail."""

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """A value for each key, or None. Never raises, and each part of it is bounded by a short timeout."""

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """Keep values, some time later. Never waits: when too many are waiting, these are dropped."""

    async def ping(self) -> None:
        """Raise `Unavailable`, with the reason, when it is not used or does not answer."""


class ValkeyCache:
    """Valkey or Redis at a URL. After a failure it is left alone for a while."""

    def __init__(
        self, url: str, registry: CollectorRegistry, *, timeout_s: float, ttl_s: float, pause_s: float
    ) -> None:
        self._client: Redis = Redis.from_pool(
            BlockingConnectionPool.from_url(
                url,
                max_connections=CONNECTIONS_MAX,
                timeout=timeout_s,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 0),  # the caller goes on without; whoever is next tries again
            )
        )
        self._timeout_s = timeout_s
        self._ttl_ms = int(ttl_s * 1000) or None
        self._pause_s = pause_s
        self._paused_until = 0.0
        self._writes: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue(WRITES_WAITING_MAX)
        self._problem: str | None = None
        self._hits = Counter("embedd_shared_hits", "Texts found in the shared cache.", registry=registry)
        self._misses = Counter("embedd_shared_misses", "Texts not found there.", registry=registry)
        self._errors = Counter("embedd_shared_errors", "Calls of it that failed.", registry=registry)
        self._dropped = Counter("embedd_shared_dropped", "Values not written to it.", registry=registry)
        Gauge("embedd_shared_up", "Whether it is used.", registry=registry).set_function(
            lambda: self._problem is None
        )

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        values: list[bytes | None] = []
        while len(values) < len(keys) and time.monotonic() >= self._paused_until:
            wanted = [KEY_PREFIX + key for key in keys[len(values) : len(values) + READS_A_CALL]]
            try:
                async with asyncio.timeout(self._timeout_s):
                    found = await self._client.mget(wanted)
            except (RedisError, OSError, TimeoutError) as error:
                self._failed(error)
                break
            self._worked()
            _raise_if_cancelled()
            values += [value if isinstance(value, bytes) else None for value in found]
        values += [None] * (len(keys) - len(values))
        hits = sum(value is not None for value in values)
        self._hits.inc(hits)
        self._misses.inc(len(keys) - hits)
        return values

    def put(self, values: Mapping[bytes, bytes]) -> None:
        for item in values.items():
            try:
                self._writes.put_nowait(item)
            except asyncio.QueueFull:
                self._dropped.inc()

    async def write(self) -> None:
        """Write what was put, for ever. Run by the daemon's task set."""
        while True:
            batch = [await self._writes.get()]
            with contextlib.suppress(asyncio.QueueEmpty):
                while len(batch) < WRITES_A_CALL:
                    batch.append(self._writes.get_nowait())
            await self._write(batch)
            _raise_if_cancelled()

    async def _write(self, batch: Sequence[tuple[bytes, bytes]]) -> None:
        if time.monotonic() < self._paused_until:
            self._dropped.inc(len(batch))
            return
        try:
            async with (
                asyncio.timeout(self._timeout_s * 10),
                self._client.pipeline(transaction=False) as pipe,
            ):
                for key, value in batch:
                    pipe.set(KEY_PREFIX + key, value, px=self._ttl_ms)
                await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            self._dropped.inc(len(batch))
            self._failed(error)
        else:
            self._worked()

    def _failed(self, error: Exception) -> None:
        self._errors.inc()
        self._paused_until = time.monotonic() + self._pause_s
        if self._problem is None:
            log.warning("the shared cache is not used", reason=type(error).__name__)
        self._problem = type(error).__name__

    def _worked(self) -> None:
        if self._problem is not None:
            log.info("the shared cache is used again")
        self._problem = None
        self._paused_until = 0.0

    async def ping(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._client.ping()
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(error)
            raise Unavailable(f"the shared cache failed: {type(error).__name__}") from error
        self._worked()

    async def close(self) -> None:
        await self._client.aclose()


def _raise_if_cancelled() -> None:
    """The client of redis-py loses a cancellation that meets it at work, and we would never end."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class FakeSharedCache:
    """A dict, for tests."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.values.get(key) for key in keys]

    def put(self, values: Mapping[bytes, bytes]) -> None:
        self.values.update(values)

    async def ping(self) -> None:
        return
