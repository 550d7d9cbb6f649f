"""Where an answer comes from while it comes: a stream, or one piece, from which its reader may go away.

What is `kept` goes on without its reader, to be drained; the rest ends with it.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Protocol, TypeAlias, TypeVar

from chatd.backends import Completion, Delta, Gathered, pieces_of
from chatd.backends.failures import too_long
from services.errors import PlatformError, UpstreamError
from services.tasks import TaskSet

Result = TypeVar("Result")
Step: TypeAlias = Callable[[], Awaitable[Result]]


class Source(Protocol):
    gathered: Gathered

    async def rest(self) -> None:
        """Take in all that is still to come. Raises what the provider's failure means."""
        ...

    async def close(self) -> None:
        """Stop the upstream work; the connection is gone when this returns."""
        ...


class _Kept:
    """Steps that outlive their reader: each is a task, and a reader who is cancelled leaves it running."""

    def __init__(self, tasks: TaskSet) -> None:
        self._tasks = tasks
        self._step: asyncio.Task[Any] | None = None

    async def take(self, step: Step[Any]) -> Any:
        self._step = self._tasks.start(_caught(step), name="read from a provider")
        return await self.pending()

    async def pending(self) -> Any:
        """What the step under way comes to, or None when there is none."""
        if self._step is None:
            return None
        outcome = await asyncio.shield(self._step)
        self._step = None
        if isinstance(outcome, PlatformError):
            raise outcome
        return outcome

    async def close(self) -> None:
        step, self._step = self._step, None
        if step is not None:
            step.cancel()
            await asyncio.wait({step})


async def _caught(step: Step[Any]) -> Any:
    """A failure as a value: an exception that nobody fetched would be logged as ours."""
    try:
        return await step()
    except PlatformError as error:
        return error


class StreamSource:
    """The deltas of a stream, and all of them so far put together: no more than `bytes_max` of text."""

    def __init__(
        self,
        provider: str,
        deltas: AsyncGenerator[Delta, None],
        kept_by: TaskSet | None,
        *,
        bytes_max: int,
    ) -> None:
        self.gathered = Gathered()
        self._provider = provider
        self._deltas = deltas
        self._bytes_max = bytes_max
        self._bytes = 0
        self._kept = _Kept(kept_by) if kept_by is not None else None

    async def next(self) -> Delta:
        """The next delta that says something. Raises `UpstreamError` when there is none."""
        while True:
            delta = await (self._kept.take(self._step) if self._kept is not None else self._step())
            if (said := self._taken(delta)) is not None:
                return said

    async def rest(self) -> None:
        if self._kept is not None and (delta := await self._kept.pending()) is not None:
            self._taken(delta)
        while self.gathered.finish_reason is None:
            await self.next()

    async def close(self) -> None:
        if self._kept is not None:
            await self._kept.close()
        await self._deltas.aclose()

    async def _step(self) -> Delta | None:
        return await anext(self._deltas, None)

    def _taken(self, delta: Delta | None) -> Delta | None:
        if delta is None:
            raise UpstreamError(f"{self._provider} ended its stream without an end", code="truncated")
        self._bytes += delta.text_bytes
        if self._bytes > self._bytes_max:
            raise too_long(self._provider, "stream", self._bytes_max)
        self.gathered.add(delta)
        return delta if delta.has_content or delta.finish_reason is not None else None


class WholeSource:
    """An answer in one piece, of no more than `bytes_max` of text."""

    def __init__(
        self, provider: str, answer: Step[Completion], kept_by: TaskSet | None, *, bytes_max: int
    ) -> None:
        self.gathered = Gathered()
        self._provider = provider
        self._bytes_max = bytes_max
        self._answer = answer
        self._kept = _Kept(kept_by) if kept_by is not None else None

    async def result(self) -> Completion:
        completion: Completion = await (self._kept.take(self._answer) if self._kept else self._answer())
        if in_one(completion).text_bytes > self._bytes_max:
            raise too_long(self._provider, "answer", self._bytes_max)
        return completion

    async def rest(self) -> None:
        completion: Completion | None = await self._kept.pending() if self._kept is not None else None
        if completion is not None:
            self.gathered.add(in_one(completion))

    async def close(self) -> None:
        if self._kept is not None:
            await self._kept.close()


def in_one(completion: Completion) -> Delta:
    """A whole answer as a single delta."""
    return Delta(
        content=completion.content or "",
        reasoning=completion.reasoning or "",
        tool_calls=pieces_of(completion.tool_calls),
        finish_reason=completion.finish_reason,
        usage=completion.usage,
        refusal=completion.refusal or "",
        raw_usage=completion.raw_usage,
        logprobs=completion.logprobs,
    )
