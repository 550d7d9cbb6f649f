"""Carries requests out: the one loop that ties candidates, limits, retries and records together."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final, Literal, TypeVar

import structlog

from chatd.backends import Completion, Delta, without
from chatd.engine import catalogue
from chatd.engine.answered import Answered, Deltas, Opened
from chatd.engine.asking import Asking, digest_of
from chatd.engine.attempts import Attempt
from chatd.engine.budget import Ledger
from chatd.engine.cache import Cache, Kept, key_of
from chatd.engine.caller import ANYBODY, Caller
from chatd.engine.calls import Call, Order, Origin
from chatd.engine.candidates import Route, Standings, Target, ranked, route
from chatd.engine.config import Keeper
from chatd.engine.doors import Doors
from chatd.engine.formats import FormatCheck
from chatd.engine.limits import Lines
from chatd.engine.metrics import Metrics
from chatd.engine.retry import RETRY_AFTER_MAX_S, Course, told
from chatd.engine.sources import StreamSource, in_one
from chatd.engine.spans import Spans
from chatd.engine.spool import Spool
from schemas.chat import ChatRequest, ModelCard, ModelList
from services.errors import PlatformError, UpstreamTimeout
from services.tasks import TaskSet, task_set
from services.tracing import Tracer

log = structlog.get_logger(__name__)

Result = TypeVar("Result")
Work = Callable[[Attempt, ChatRequest], Awaitable[Result]]

SLACK_S: Final = 0.005
"""A timer may fire this much too early."""


class Dispatcher:
    """Chooses who is asked, has them asked, writes the records. Belongs to one event loop."""

    def __init__(
        self,
        keeper: Keeper,
        spool: Spool,
        metrics: Metrics,
        ledger: Ledger,
        tasks: TaskSet,
        *,
        answer_bytes_max: int,
        tracer: Tracer | None = None,
    ) -> None:
        self._keeper = keeper
        self._spool = spool
        self._metrics = metrics
        self._spans = Spans(tracer)
        self._tasks = tasks
        self._asking = Asking(tasks, bytes_max=answer_bytes_max)
        self.cache = Cache()
        self.doors = Doors(Standings(), Lines(), ledger)
        metrics.watch(self.doors.standings, self.doors.lines)

    def resolve(self, model: str) -> Route:
        """What a model id stands for. Raises `NotFound` naming what there is."""
        return route(self._keeper.current, model)

    def admit(self, request: ChatRequest, caller: Caller = ANYBODY) -> Order:
        """Look at a request before there is a call.

        Raises `NotFound` for an unknown provider, `InvalidRequest` for a schema that is none, and
        `Unavailable` when the record would not fit; then there is no run.
        """
        snapshot = self._keeper.current
        resolved = route(snapshot, request.model)
        check = FormatCheck(request.response_format)
        self._spool.check_room()
        return Order(request, resolved, snapshot, check, caller)

    def attempts_max(self, order: Order) -> int:
        """How often a request may be tried: what its client has tried already counts."""
        return max(1, order.snapshot.config.dispatch.attempts_max - order.caller.retries)

    def cached(self, order: Order, principal: str | None) -> Literal["off", "hit", "miss"]:
        """Whether the answer is there already."""
        if not order.snapshot.config.cache.enabled:
            return "off"
        key = key_of(order.request, principal=principal, config_hash=order.snapshot.hash)
        return "miss" if order.caller.fresh or self.cache.get(key) is None else "hit"

    @asynccontextmanager
    async def call(self, order: Order, origin: Origin) -> AsyncIterator[Call]:
        """A call that is recorded when the block ends, however it ends."""
        call = Call(order, origin)
        async with self._recorded(call):
            yield call

    @asynccontextmanager
    async def _recorded(self, call: Call) -> AsyncIterator[None]:
        try:
            yield
        except Exception as error:
            call.fail(error)
            raise
        finally:
            if (attempt := _left_to_drain(call)) is not None:
                task = self._tasks.start(self._drain(call, attempt), name="drain an answer")
                task.add_done_callback(lambda _: self._finish(call))
                await asyncio.sleep(0)  # a task that is cancelled before it starts would clean up nothing
            else:
                try:
                    await _close_sources(call)
                finally:
                    self._finish(call)

    async def generate(self, call: Call, *, within_s: float | None = None) -> Completion:
        """The model's whole answer, within the patience of the caller and that of this one's."""
        waits = [wait for wait in (within_s, call.order.caller.patience_s) if wait is not None]
        until = time.monotonic() + min(waits) if waits else None

        async def work(attempt: Attempt, request: ChatRequest) -> Completion:
            return await self._asking.whole(attempt, request, until)

        attempt, completion = await self._dispatch(call, work, stream=False, until=until)
        call.finish(completion)
        attempt.succeed(call.usage)
        return completion

    async def complete(self, order: Order, origin: Origin) -> Answered:
        """Answer in one piece."""
        key = self._cache_key(order, origin)
        async with self.call(order, origin) as call:
            if (kept := self._kept(call, key)) is not None:
                completion = kept.completion
            else:
                completion = await self.generate(call)
                order.format.check(completion)
                self._keep(call, key, completion)
        return Answered(call, completion, origin.headers)

    async def open(self, order: Order, origin: Origin) -> Opened:
        """Begin to answer as a stream. Returns with the first token; failures before it are raised as such.

        The record is written before the delta with the `finish_reason`, so whoever saw that has a run.
        """
        call = Call(order, origin)
        deltas = self._stream(call)
        return Opened(call, Deltas(await anext(deltas), deltas), origin.headers)

    # --- the loop -------------------------------------------------------------------------------

    async def _dispatch(
        self, call: Call, work: Work[Result], *, stream: bool, until: float | None
    ) -> tuple[Attempt, Result]:
        """Try until it works, or nothing is left to try. Raises the failure of the target asked first."""
        course = self._course(call, stream=stream)
        refusal: PlatformError | None = None
        while refusal is None:
            try:
                attempt = await self.doors.enter(call, course, stream=stream, until=until)
            except PlatformError as error:
                refusal = error
                break
            tried, outcome = await self._try(call, course, attempt, work, stream=stream)
            if not isinstance(outcome, PlatformError):
                call.target, call.digest = tried.target, tried.digest
                return tried, outcome
            wait_s = course.failed(tried.target, outcome, closed=tried.closed)
            if wait_s is None or (until is not None and time.monotonic() + wait_s >= until):
                refusal = outcome
            elif wait_s > 0:
                await asyncio.sleep(wait_s + SLACK_S)
        raise self._parting(call, course, refusal)

    def _course(self, call: Call, *, stream: bool) -> Course:
        order = call.order
        config = order.snapshot.config
        targets: Sequence[Target] = order.route.targets
        if len(targets) > 1:
            fitting = [one for one in targets if not self.doors.lacks(one, order)]
            targets = ranked(
                fitting or targets,
                order.route.strategy,
                lambda target: self.doors.standing(target, config.breaker),
                stream=stream,
            )
        call.target = targets[0]
        return Course(
            targets,
            context=order.route.context,
            policy=order.route.policy,
            attempts_max=self.attempts_max(order),
        )

    async def _try(
        self, call: Call, course: Course, attempt: Attempt, work: Work[Result], *, stream: bool
    ) -> tuple[Attempt, Result | PlatformError]:
        hedge_s = call.order.route.hedge_s
        if not stream or hedge_s is None:
            return attempt, await self._run(call, attempt, work)
        return await self._race(call, course, attempt, work, hedge_s)

    async def _run(self, call: Call, attempt: Attempt, work: Work[Result]) -> Result | PlatformError:
        """One attempt. Its failure is a value, as it may not be the end."""
        target = attempt.target
        call.target = target
        try:
            with self._spans.around(attempt):
                attempt.digest = call.digest = await digest_of(target)
                result = await work(attempt, self._asked(call, attempt))
        except PlatformError as error:
            await attempt.close_source()
            attempt.fail(error, generated=isinstance(error, UpstreamTimeout))
            self._metrics.attempted(target.provider.name, error.type)
            log.info("attempt failed", provider=target.provider.name, code=error.code, stage="before commit")
            return error
        attempt.answers()
        self._metrics.attempted(target.provider.name, "ok")
        return result

    async def _race(
        self, call: Call, course: Course, attempt: Attempt, work: Work[Result], hedge_s: float
    ) -> tuple[Attempt, Result | PlatformError]:
        """One attempt, and a second beside it when the first keeps silent: the first to answer wins."""
        running: dict[asyncio.Task[Result | PlatformError], Attempt] = {}
        last: tuple[Attempt, Result | PlatformError] | None = None
        try:
            async with task_set() as tasks:
                running[tasks.start(self._run(call, attempt, work), name="attempt")] = attempt
                await asyncio.wait(running, timeout=hedge_s)
                first_done = next(iter(running)).done()
                if not first_done and (second := self.doors.beside(call, course, attempt)) is not None:
                    self._metrics.hedges.inc()
                    running[tasks.start(self._run(call, second, work), name="hedge")] = second
                while running and (last is None or isinstance(last[1], PlatformError)):
                    done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    winner = min(done, key=lambda task: isinstance(task.result(), PlatformError))
                    if last is not None and isinstance(failed := last[1], PlatformError):
                        course.failed(last[0].target, failed, closed=last[0].closed)
                    last = running.pop(winner), winner.result()
        finally:
            for loser in running.values():
                await loser.close_source()
                loser.abort()
        assert last is not None
        return last

    def _asked(self, call: Call, attempt: Attempt) -> ChatRequest:
        """The request as this target gets it."""
        order = call.order
        request = order.request.model_copy(update={"model": attempt.target.model})
        if order.caller.allow_drop:
            lacks = attempt.target.provider.lacking(request)
            params = [lack.param for lack in lacks if lack.droppable]
            call.drop(params)
            if params:
                return without(request, params)
        return request

    def _parting(self, call: Call, course: Course, refusal: PlatformError) -> PlatformError:
        """The failure that the caller is told, with what its client shall make of it."""
        error = course.verdict(refusal)
        spent = course.spent or refusal.code in ("circuit_open", "budget_exceeded")
        if error.retry_after_s is not None:
            error.retry_after_s = min(error.retry_after_s, RETRY_AFTER_MAX_S)
        call.origin.headers.update(told(error, spent=spent))
        return error

    # --- a stream -------------------------------------------------------------------------------

    async def _stream(self, call: Call) -> AsyncGenerator[Delta, None]:
        order = call.order
        key = self._cache_key(order, call.origin)
        async with self._recorded(call):
            if (kept := self._kept(call, key)) is not None:
                completion, last = kept.completion, in_one(kept.completion)
            else:
                patience_s = order.caller.patience_s

                async def work(attempt: Attempt, request: ChatRequest) -> tuple[StreamSource, Delta]:
                    return await self._asking.begin(attempt, request, patience_s)

                until = time.monotonic() + patience_s if patience_s is not None else None
                attempt, (source, last) = await self._dispatch(call, work, stream=True, until=until)
                call.gathered = source.gathered
                call.ttft_ms = call.elapsed_ms()
                while last.finish_reason is None:
                    yield last
                    last = await self._asking.go_on(attempt, source, patience_s)
                completion = source.gathered.completion()
                call.finish(completion)
                attempt.succeed(call.usage)
                order.format.check(completion)
                self._keep(call, key, completion)
        if last.has_content:
            yield _unfinished(last)
        yield Delta(finish_reason=completion.finish_reason, usage=call.usage, raw_usage=completion.raw_usage)

    # --- what remains ---------------------------------------------------------------------------

    async def _drain(self, call: Call, attempt: Attempt) -> None:
        """Take in the rest of an answer that nobody waits for, as its provider is paid for it anyway."""
        source = attempt.source
        assert source is not None
        left_s = attempt.target.spec.timeouts.total_s - attempt.elapsed_s
        try:
            async with asyncio.timeout(max(0.0, left_s)):
                await source.rest()
        except (PlatformError, TimeoutError):
            log.info("an answer could not be drained", provider=attempt.target.provider.name)
        finally:
            self._metrics.drained.inc()
            call.gathered = source.gathered
            try:
                await source.close()
            finally:
                attempt.abort(None if call.estimated else call.usage)

    def _finish(self, call: Call) -> None:
        """Give back whatever is still held, and write the record, once."""
        if call.recorded:
            return
        call.recorded = True
        for attempt in call.attempts:
            attempt.abort()
        self._spool.append(call.line())
        self._measure(call)
        self._spans.told(call)

    def _measure(self, call: Call) -> None:
        name = call.target.provider.name
        self._metrics.called(name, call.outcome)
        if call.ttft_ms is not None:
            self._metrics.ttft.labels(name).observe(call.ttft_ms / 1000)
        for attempt in call.attempts:
            error = None if attempt.status == "ok" else attempt.code or "aborted"
            target = attempt.target
            self._metrics.operated(target.provider.name, target.model, error, attempt.latency_ms / 1000)
        if call.kept is None:
            self._metrics.spent(name, call.target.model, call.usage)

    # --- the cache ------------------------------------------------------------------------------

    def _cache_key(self, order: Order, origin: Origin) -> bytes | None:
        if not order.snapshot.config.cache.enabled:
            return None
        origin.headers["x-cache"] = "miss"
        return key_of(order.request, principal=origin.principal, config_hash=order.snapshot.hash)

    def _kept(self, call: Call, key: bytes | None) -> Kept | None:
        """An earlier answer to the same request, which becomes the answer of this call."""
        if key is None or call.order.caller.fresh or (kept := self.cache.get(key)) is None:
            return None
        call.kept = kept
        call.finish(kept.completion)
        call.origin.headers["x-cache"] = "hit"
        self._metrics.cache_hits.inc()
        return kept

    def _keep(self, call: Call, key: bytes | None, completion: Completion) -> None:
        if key is not None and call.kept is None:
            kept = Kept(completion, call.origin.run_id)
            self.cache.put(key, kept, call.order.snapshot.config.cache)

    # --- models ---------------------------------------------------------------------------------

    async def models(self) -> ModelList:
        """The models of all providers that answer. Raises `Unavailable` when none does."""
        return await catalogue.models(self._keeper.current)

    async def model(self, model: str) -> ModelCard:
        """One model, by its id as in a request."""
        return await catalogue.model(self._keeper.current, model)

    async def ping(self) -> None:
        """Raise unless at least one provider answers."""
        await self.models()


def _left_to_drain(call: Call) -> Attempt | None:
    """The one attempt that goes on though its caller has gone, as its provider wants."""
    if call.status != "aborted":
        return None
    running = [one for one in call.attempts if one.status is None]
    if len(running) != 1 or running[0].source is None:
        return None
    return running[0] if running[0].target.spec.on_disconnect == "drain" else None


async def _close_sources(call: Call) -> None:
    for attempt in call.attempts:
        await attempt.close_source()


def _unfinished(delta: Delta) -> Delta:
    return replace(delta, finish_reason=None, usage=None, raw_usage=None)
