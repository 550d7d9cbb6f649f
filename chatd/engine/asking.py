"""What is done at one target: it is asked, while the clocks run."""

import asyncio
import time
from functools import partial
from typing import Final

import structlog

from chatd.backends import Completion, Delta
from chatd.engine.attempts import Attempt
from chatd.engine.candidates import Target
from chatd.engine.sources import StreamSource, WholeSource
from schemas.chat import ChatRequest
from services.errors import PlatformError, UpstreamTimeout
from services.tasks import TaskSet

log = structlog.get_logger(__name__)

DIGEST_TIMEOUT_S: Final = 2.0


class Asking:
    """Asks the targets of attempts. `tasks` keep what is read to its end though its caller has left, and
    answers have `bytes_max` of text at the most.

    `patience_s` is the caller's own limit on each silence, where there is one. Raises the provider's errors,
    and `UpstreamTimeout` naming the clock that ran out.
    """

    def __init__(self, tasks: TaskSet, *, bytes_max: int) -> None:
        self._tasks = tasks
        self._bytes_max = bytes_max

    async def whole(self, attempt: Attempt, request: ChatRequest, until: float | None) -> Completion:
        """The whole answer, by `until` of the monotonic clock at the latest."""
        target = attempt.target
        limit_s = target.spec.timeouts.total_s
        if until is not None:
            limit_s = min(limit_s, until - time.monotonic())
        ask = partial(target.provider.complete, request, key=attempt.key)
        attempt.source = source = WholeSource(
            target.provider.name, ask, self._keeper_of(attempt), bytes_max=self._bytes_max
        )
        try:
            async with asyncio.timeout(limit_s):
                return await source.result()
        except TimeoutError:
            raise _too_slow(attempt, f"finish within {limit_s:.3g} s") from None

    async def begin(
        self, attempt: Attempt, request: ChatRequest, patience_s: float | None
    ) -> tuple[StreamSource, Delta]:
        """A stream with its first delta that says something."""
        target = attempt.target
        deltas = target.provider.stream(request, key=attempt.key)
        attempt.source = source = StreamSource(
            target.provider.name, deltas, self._keeper_of(attempt), bytes_max=self._bytes_max
        )
        limit_s = _least(target.spec.timeouts.first_token_s, patience_s)
        return source, await _next(attempt, source, limit_s, f"say anything in {limit_s:.3g} s")

    async def go_on(self, attempt: Attempt, source: StreamSource, patience_s: float | None) -> Delta:
        """The next delta of a stream. A failure ends the attempt: nobody else can go on with its answer."""
        idle_s = _least(attempt.target.spec.timeouts.idle_s, patience_s)
        try:
            return await _next(attempt, source, idle_s, f"go on for {idle_s:.3g} s")
        except PlatformError as error:
            attempt.fail(error, generated=True)
            log.info(
                "attempt failed", provider=attempt.target.provider.name, code=error.code, stage="after commit"
            )
            raise

    def _keeper_of(self, attempt: Attempt) -> TaskSet | None:
        return self._tasks if attempt.target.spec.on_disconnect == "drain" else None


async def _next(attempt: Attempt, source: StreamSource, limit_s: float, what: str) -> Delta:
    left_s = attempt.target.spec.timeouts.total_s - attempt.elapsed_s
    if left_s < limit_s:
        limit_s, what = left_s, f"finish within {attempt.target.spec.timeouts.total_s:.3g} s"
    try:
        async with asyncio.timeout(limit_s):
            return await source.next()
    except TimeoutError:
        raise _too_slow(attempt, what) from None


async def digest_of(target: Target) -> str | None:
    """The model's digest where it can be had quickly; a provider that is down shows in the call itself."""
    try:
        async with asyncio.timeout(DIGEST_TIMEOUT_S):
            return await target.provider.digest(target.model)
    except (PlatformError, TimeoutError):
        return None


def _too_slow(attempt: Attempt, what: str) -> UpstreamTimeout:
    return UpstreamTimeout(f"{attempt.target.provider.name} did not {what}")


def _least(limit_s: float, patience_s: float | None) -> float:
    return limit_s if patience_s is None else min(limit_s, patience_s)
