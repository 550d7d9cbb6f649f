"""Rates kept in Valkey or Redis."""

import asyncio
import time
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.backends.rates import PERIOD_S, Taken
from services.errors import Unavailable

log = structlog.get_logger(__name__)

KEY_PREFIX: Final = "stillhouse:rate:2:"
CONNECTIONS_MAX: Final = 16

TAKE: Final = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
local wanted, each, period = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local arrival, said = string.match(redis.call('GET', KEYS[1]) or '0 0', '(%S+) (%S+)')
local back = math.max(0, tonumber(said) - now)
local ahead = math.max(0, tonumber(arrival) - now - back)
local taken = wanted
if ARGV[4] == '0' then
  taken = math.max(0, math.min(wanted, math.floor((period - ahead) / each + 1e-6)))
end
ahead = ahead + taken * each
if taken > 0 or back > 0 then
  local kept = string.format('%.6f %.6f', now + ahead, now)
  redis.call('SET', KEYS[1], kept, 'PX', math.ceil(ahead * 1000) + 1000)
end
return {taken, string.format('%.6f', ahead)}
"""
"""One step of the generic cell rate algorithm, whole and by the store's own clock.

What it keeps is when all that was taken would have arrived, and what the clock said then: one that was set
back meanwhile would otherwise leave the limit shut for as long.

ARGV: how much is wanted, seconds for each, seconds in a period, and 1 to take it even where it does not fit.
"""


class ValkeyRates:
    """Counts at a URL. After a failure it is left alone for `pause_s`, and the caller told so at once."""

    def __init__(self, url: str, registry: CollectorRegistry, *, timeout_s: float, pause_s: float) -> None:
        self._client: Redis = Redis.from_pool(
            BlockingConnectionPool.from_url(
                url,
                max_connections=CONNECTIONS_MAX,
                timeout=timeout_s,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 0),  # the caller has a count of its own to go by
            )
        )
        self._script = self._client.register_script(TAKE)
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._paused_until = 0.0
        self._problem: str | None = None
        self._errors = Counter(
            "gateway_shared_limits_errors", "Calls of the store of limits that failed.", registry=registry
        )
        Gauge(
            "gateway_shared_limits_up",
            "Whether limits are shared; if not, each gateway keeps its own.",
            registry=registry,
        ).set_function(lambda: self._problem is None)

    async def take(self, name: str, amount: int, per_minute: int, *, whole: bool) -> Taken:
        if time.monotonic() < self._paused_until:
            raise Unavailable(f"the store of limits failed: {self._problem}")
        try:
            async with asyncio.timeout(self._timeout_s):
                taken, ahead = await self._script(
                    keys=[KEY_PREFIX + name], args=[amount, PERIOD_S / per_minute, PERIOD_S, int(whole)]
                )
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(error)
            raise Unavailable(f"the store of limits failed: {self._problem}") from error
        if self._problem is not None:
            log.info("limits are shared again")
        self._problem = None
        return Taken(int(taken), float(ahead))

    def _failed(self, error: Exception) -> None:
        self._errors.inc()
        self._paused_until = time.monotonic() + self._pause_s
        if self._problem is None:
            log.warning("limits are not shared: each gateway keeps its own", reason=type(error).__name__)
        self._problem = type(error).__name__

    async def close(self) -> None:
        await self._client.aclose()
