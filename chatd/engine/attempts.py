"""One attempt at one target, and all that is held for it: given back once, whatever ends it."""

import time
from typing import Literal

from chatd.engine.breaker import Trial
from chatd.engine.budget import Reservation
from chatd.engine.candidates import Standing, Target
from chatd.engine.limits import Lease
from chatd.engine.retry import Failure, asked_s, failure_of
from chatd.engine.sources import Source
from schemas.runs import Usage
from services.context import RequestContext
from services.errors import PlatformError

Status = Literal["ok", "failed", "aborted"]


class Attempt:
    """Under way until `end`. What it has used is unknown then, unless that is said.

    `under` is the request with the attempt's own span, where attempts are traced.
    """

    def __init__(
        self,
        target: Target,
        key: int,
        *,
        standing: Standing,
        trial: Trial,
        lease: Lease,
        reservation: Reservation | None,
        stream: bool,
    ) -> None:
        self.target = target
        self.key = key
        self.status: Status | None = None
        self.code: str | None = None
        self.latency_ms = 0.0
        self.source: Source | None = None
        self.digest: str | None = None
        self.under: RequestContext | None = None
        self.generated = False
        self._standing = standing
        self._trial = trial
        self._lease = lease
        self._reservation = reservation
        self._stream = stream
        self._answering = False
        self._started = time.perf_counter()
        standing.in_flight += 1

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self._started

    @property
    def closed(self) -> bool:
        """Whether the circuit of its target lets calls through."""
        return self._standing.breaker.state == "closed"

    def answers(self) -> None:
        """The target has begun to answer, or has answered in one piece."""
        if not self._answering:
            self._answering = True
            self._trial.succeeded()
            self._standing.answered(self.elapsed_s, stream=self._stream)

    def succeed(self, usage: Usage) -> None:
        self.answers()
        self._end("ok", usage)

    def fail(self, error: PlatformError, *, generated: bool) -> None:
        """`generated` says that tokens may have been spent on it."""
        failure = failure_of(error)
        if failure in (Failure.BROKEN, Failure.SLOW, Failure.CREDENTIALS):
            self._standing.last_failure = error.code
            if self._answering:
                self._standing.breaker.failed(probe=False)
            self._trial.failed()
        elif failure is Failure.BUSY:
            self._standing.hold(asked_s(error) or 0.0)
        elif failure is not Failure.ELSEWHERE:
            self._trial.succeeded()  # it has looked at the request, so it works
        self.code = error.code
        self.generated = generated
        self._end("failed", None if generated else Usage(prompt_tokens=0, completion_tokens=0, cost_usd=0.0))

    async def close_source(self) -> None:
        """Stop the upstream work, if there is any."""
        source, self.source = self.source, None
        if source is not None:
            await source.close()

    def abort(self, usage: Usage | None = None) -> None:
        """Nobody wants it any more."""
        self.generated = self.generated or self.status is None
        self._end("aborted", usage)

    def disown(self, code: str) -> None:
        """The answer that came is not what was asked for."""
        self.status = "failed"
        self.code = code

    def _end(self, status: Status, usage: Usage | None) -> None:
        if self.status is not None:
            return
        self.status = status
        self.latency_ms = round(self.elapsed_s * 1000, 3)
        self._standing.in_flight -= 1
        self._trial.close()
        self._lease.settle(_total(usage))
        self._lease.release()
        if self._reservation is not None:
            self._reservation.settle(usage.cost_usd if usage is not None else None)


def _total(usage: Usage | None) -> int | None:
    if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    return usage.prompt_tokens + usage.completion_tokens
