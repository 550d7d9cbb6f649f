"""From texts to vectors: batches that form while the backends are busy, spread over those that work.

There is no timer. A text that finds a free backend is sent at once; texts that come while all are busy
leave together, as many as the limits allow, when one is free again.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from embedd.backends import Backend, BadAnswer, Computed, ItemsRefused
from embedd.engine.cache import Entry
from embedd.engine.flights import Abandoned, Batch, Flight, Plan, apportioned
from embedd.engine.lanes import MODEL_CHANGED, Distrusted, Lane, Lanes
from embedd.engine.metrics import Metrics
from embedd.engine.spans import Spans
from services.errors import NotFound, Overloaded, PlatformError, Unavailable, UpstreamTimeout
from services.tasks import TaskSet

RETRIED: Final = (Unavailable, UpstreamTimeout, Overloaded, NotFound, Distrusted)
"""What another backend, or the same one a little later, may do better."""

Queue = OrderedDict[Flight, None]


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one call (texts, estimated tokens), of one backend (calls at once), and of all that wait (texts)."""

    batch_items_max: int
    batch_tokens_max: int
    concurrency_max: int
    waiting_max: int
    tries_max: int
    busy_pause_s: float
    probe_interval_s: float
    look_timeout_s: float
    digest_ttl_s: float


class Pool:
    """The backends, and the texts that wait for one. Belongs to one event loop."""

    def __init__(
        self, backends: Sequence[Backend], metrics: Metrics, limits: Limits, spans: Spans | None = None
    ) -> None:
        self.spans = spans or Spans(None)
        self._metrics = metrics
        self._limits = limits
        self._queues: OrderedDict[Plan, Queue] = OrderedDict()
        self._waiting = 0
        self._tasks = TaskSet()
        self._closed = False
        self.lanes = Lanes(
            backends,
            self._tasks,
            self._pump,
            probe_interval_s=limits.probe_interval_s,
            look_timeout_s=limits.look_timeout_s,
            digest_ttl_s=limits.digest_ttl_s,
        )
        self.known_digest = self.lanes.known_digest
        metrics.backends_up.set_function(lambda: self.lanes.up)
        metrics.waiting.set_function(lambda: self._waiting)

    # --- the queue --------------------------------------------------------------------------

    def submit(self, plan: Plan, texts: Sequence[str]) -> list[Flight]:
        """Queue texts. Raises `Overloaded` when too many wait: then none of these is queued."""
        if self._closed:
            raise Unavailable("shutting down")
        if texts and self._waiting + len(texts) > self._limits.waiting_max:
            raise Overloaded(f"{self._waiting} texts wait; at most {self._limits.waiting_max} may")
        loop = asyncio.get_running_loop()
        flights = [Flight(plan, text, loop.create_future()) for text in texts]
        if flights:
            self._queues.setdefault(plan, OrderedDict()).update(dict.fromkeys(flights))
            self._waiting += len(flights)
            self._pump()
        return flights

    def abandon(self, flight: Flight) -> None:
        """Nobody waits for this one any more. When that is so for its whole batch, the call is ended."""
        queue = self._queues.get(flight.plan)
        if queue is not None and flight in queue:
            del queue[flight]
            self._waiting -= 1
            if not queue:
                del self._queues[flight.plan]
            self._drop(flight)
        elif flight.batch is not None and flight.batch.abandoned and flight.batch.task is not None:
            flight.batch.task.cancel()

    def _drop(self, flight: Flight) -> None:
        self._metrics.abandoned.inc()
        flight.fail(Abandoned("nobody waited any more"))

    def _requeue(self, plan: Plan, flights: Sequence[Flight]) -> None:
        """Put texts in front, for they have waited longest."""
        queue = self._queues.setdefault(plan, OrderedDict())
        for flight in reversed(flights):
            queue[flight] = None
            queue.move_to_end(flight, last=False)
        self._waiting += len(flights)
        self._pump()

    def _pump(self) -> None:
        """Send what can be sent. The plan that was served last goes to the end."""
        if self._closed:
            return
        for plan in list(self._queues):
            queue = self._queues[plan]
            suited = self.lanes.suited(plan)
            if not suited:
                self._give_up(plan, queue)
            while queue and (lane := self._free(suited)) is not None:
                self._launch(lane, plan, self._take(queue))
                self._queues.move_to_end(plan)
            if not queue:
                del self._queues[plan]

    def _free(self, lanes: Sequence[Lane]) -> Lane | None:
        free = [lane for lane in lanes if lane.in_flight < self._limits.concurrency_max and not lane.pauses]
        return min(free, key=lambda lane: lane.in_flight, default=None)

    def _give_up(self, plan: Plan, queue: Queue) -> None:
        error = self.lanes.refusal(plan)
        for flight in queue:
            flight.fail(error)
        self._waiting -= len(queue)
        queue.clear()

    def _take(self, queue: Queue) -> list[Flight]:
        """The next batch: at least one text."""
        batch: list[Flight] = []
        tokens = 0
        while queue and len(batch) < self._limits.batch_items_max:
            flight = next(iter(queue))
            tokens += flight.tokens_estimate
            if batch and tokens > self._limits.batch_tokens_max:
                break
            del queue[flight]
            self._waiting -= 1
            batch.append(flight)
        return batch

    def _launch(self, lane: Lane, plan: Plan, flights: list[Flight]) -> None:
        lane.in_flight += 1
        batch = Batch(flights)
        for flight in flights:
            flight.batch = batch
        batch.task = self._tasks.start(self._fly(lane, plan, tuple(flights)), name="embed batch")
        # Not a `finally` in the task: one that is cancelled before its first step never gets there.
        batch.task.add_done_callback(partial(self._landed, lane, batch))

    def _landed(self, lane: Lane, batch: Batch, _: asyncio.Task[None]) -> None:
        lane.in_flight -= 1
        for flight in batch.flights:
            if flight.batch is not batch or flight.done.done():
                continue
            if self._closed:
                flight.fail(Unavailable("shutting down"))
            else:
                self._drop(flight)
        batch.flights.clear()
        self._pump()

    # --- a batch ----------------------------------------------------------------------------

    async def _fly(self, lane: Lane, plan: Plan, flights: Sequence[Flight]) -> None:
        try:
            await self.lanes.vet(lane, plan)
            await self._send(lane, plan, flights)
        except RETRIED as error:
            self._retry(lane, plan, flights, error)
        except Exception as error:  # noqa: BLE001 - every waiter gets it, whatever it is
            for flight in flights:
                flight.fail(error)

    def _retry(self, lane: Lane, plan: Plan, flights: Sequence[Flight], error: PlatformError) -> None:
        """Let another backend try what is left of a batch, or this one after a pause if it was only busy."""
        self._learn(lane, plan, error)
        if not self.lanes.suited(plan):
            refusal = self.lanes.refusal(plan)
            error = refusal if refusal.code == MODEL_CHANGED else error
            for flight in flights:
                flight.fail(error)
            return
        left = [flight for flight in flights if not flight.done.done()]
        again: list[Flight] = []
        for flight in left:
            flight.tries += 1
            if not flight.waiters:
                self._drop(flight)
            elif flight.tries >= self._limits.tries_max:
                flight.fail(error)
            else:
                flight.batch = None
                again.append(flight)
        if again:
            self._requeue(plan, again)

    def _learn(self, lane: Lane, plan: Plan, error: PlatformError) -> None:
        if isinstance(error, Unavailable | UpstreamTimeout):
            self.lanes.set_aside(lane, error.message)
        elif isinstance(error, NotFound):
            lane.forget(plan.model)
        elif isinstance(error, Overloaded) and error.code != MODEL_CHANGED:
            self._pause(lane)

    def _pause(self, lane: Lane) -> None:
        lane.pauses += 1
        asyncio.get_running_loop().call_later(self._limits.busy_pause_s, self._resume, lane)

    def _resume(self, lane: Lane) -> None:
        lane.pauses -= 1
        self._pump()

    async def _send(self, lane: Lane, plan: Plan, batch: Sequence[Flight]) -> None:
        """Compute a batch; when a text in it may be to blame for a failure, its halves: only that one fails.

        This makes fewer than twice as many calls as there are texts.
        """
        try:
            computed = await self._call(lane, plan, batch)
        except (ItemsRefused, BadAnswer) as error:
            if len(batch) == 1:
                batch[0].fail(error.cause if isinstance(error, ItemsRefused) else error)
                return
            middle = len(batch) // 2
            await self._send(lane, plan, batch[:middle])
            await self._send(lane, plan, batch[middle:])
            return
        texts = [flight.text for flight in batch]
        rows = computed.vectors.astype("<f4", copy=False)
        for flight, row, tokens in zip(batch, rows, apportioned(computed.prompt_tokens, texts), strict=True):
            flight.succeed(Entry(row.tobytes(), tokens))

    async def _call(self, lane: Lane, plan: Plan, batch: Sequence[Flight]) -> Computed:
        started = time.perf_counter()
        for flight in batch:
            if not flight.sent_at:
                flight.sent_at = started
                self._metrics.queue_seconds.observe(started - flight.queued_at)
        self._metrics.calls.inc()
        self._metrics.batch_texts.observe(len(batch))
        failure: str | None = "aborted"
        try:
            computed = await lane.backend.embed(
                plan.model, [flight.text for flight in batch], truncate=plan.truncate
            )
            await self.lanes.confirm(lane, plan)
            self.lanes.check_dimension(plan, computed)
            failure = None
        except (PlatformError, ItemsRefused) as error:
            failure = error.code if isinstance(error, PlatformError) else "items_refused"
            self._metrics.failures.inc()
            raise
        finally:
            self._metrics.upstream_seconds.observe(time.perf_counter() - started)
            self.spans.called(plan, batch, started, failure)
        return computed

    async def close(self) -> None:
        """Stop what is under way; whoever waits is told that we are going."""
        self._closed = True
        error = Unavailable("shutting down")
        for queue in self._queues.values():
            for flight in queue:
                flight.fail(error)
        self._queues.clear()
        self._waiting = 0
        await self._tasks.close()
