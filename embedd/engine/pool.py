"""From texts to vectors: batches that form while the backends are busy, spread over those that work.

There is no timer. A text that finds a free backend is sent at once; texts that come while all are busy
leave together, as many as the limits allow, when one is free again.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import structlog

from embedd.backends import Backend, Computed, ItemsRefused, ModelInfo
from embedd.engine.cache import Entry
from embedd.engine.metrics import Metrics
from services.errors import NotFound, Overloaded, PlatformError, Unavailable, UpstreamError, UpstreamTimeout
from services.tasks import TaskSet

log = structlog.get_logger(__name__)

CHARS_A_TOKEN: Final = 3
"""For limits, not for usage: few texts have fewer characters a token."""

COSINE_MIN: Final = 0.9999
PROBES: Final = (
    "The shift begins at six in the morning.",
    "Forklift operators show their card at the gate, and sign in with the supervisor before they start.",
    "Pay day",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for: texts of different plans never share a batch."""

    kind: str
    model: str
    digest: str
    truncate: bool


@dataclass(eq=False, slots=True)
class Flight:
    """One text on its way to its vector, and how many wait for it."""

    plan: Plan
    text: str
    done: asyncio.Future[Entry]
    queued_at: float = field(default_factory=time.perf_counter)
    sent_at: float = 0.0
    finished_at: float = 0.0
    waiters: int = 1
    tries: int = 0
    batch: "Batch | None" = None

    @property
    def tokens_estimate(self) -> int:
        return len(self.text) // CHARS_A_TOKEN + 1

    def succeed(self, entry: Entry) -> None:
        self.finished_at = time.perf_counter()
        if not self.done.done():
            self.done.set_result(entry)

    def fail(self, error: Exception) -> None:
        self.finished_at = time.perf_counter()
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # looked at, so that one nobody waits for is not reported as forgotten


@dataclass(eq=False, slots=True)
class Batch:
    """Flights that left together, and the task that is out for them."""

    flights: list[Flight]
    task: asyncio.Task[None] | None = None

    @property
    def abandoned(self) -> bool:
        return not any(flight.waiters for flight in self.flights)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one call (texts, estimated tokens), of one backend (calls at once), and of all that wait (texts)."""

    batch_items_max: int
    batch_tokens_max: int
    concurrency_max: int
    waiting_max: int
    tries_max: int
    probe_interval_s: float
    digest_ttl_s: float


@dataclass(eq=False, slots=True)
class Lane:
    """One backend, with what is under way to it."""

    backend: Backend
    in_flight: int = 0
    problem: str | None = None
    digests: dict[str, str] = field(default_factory=dict)
    digests_until: float = 0.0
    trusted: set[str] = field(default_factory=set)
    """Digests of models whose batches were found to equal single texts."""

    def digest_of(self, model: str) -> str | None:
        return self.digests.get(model) or self.digests.get(f"{model}:latest")


class Abandoned(Overloaded):
    """The text's computation was given up, since everyone who wanted it had left."""


def apportioned(total: int, texts: Sequence[str]) -> list[int]:
    """A call's tokens split over its texts by length, whole numbers that add up to the total."""
    characters = sum(map(len, texts))
    shares: list[int] = []
    seen = given = 0
    for text in texts:
        seen += len(text)
        upto = total * seen // characters
        shares.append(upto - given)
        given = upto
    return shares


class Pool:
    """The backends, and the texts that wait for one. Belongs to one event loop."""

    def __init__(self, backends: Sequence[Backend], metrics: Metrics, limits: Limits) -> None:
        self._lanes = [Lane(backend) for backend in backends]
        self._metrics = metrics
        self._limits = limits
        self._queues: OrderedDict[Plan, deque[Flight]] = OrderedDict()
        self._waiting = 0
        self._tasks = TaskSet()
        self._refresh: asyncio.Future[None] | None = None
        metrics.backends_up.set_function(lambda: sum(lane.problem is None for lane in self._lanes))
        metrics.waiting.set_function(lambda: self._waiting)

    @property
    def problems(self) -> dict[str, str]:
        """Backends that are set aside, and why."""
        return {lane.backend.name: lane.problem for lane in self._lanes if lane.problem is not None}

    # --- which model ------------------------------------------------------------------------

    async def digest(self, kind: str, model: str) -> str:
        """The digest behind a model's name, asked again after a while. Raises `NotFound`, `Unavailable`."""
        known = self.known_digest(kind, model)
        if known is not None:
            return known
        await self._refresh_digests()
        known = self.known_digest(kind, model)
        if known is not None:
            return known
        return self._last_digest(kind, model)

    def _last_digest(self, kind: str, model: str) -> str:
        """With every backend down, the digest that was last seen: what is cached under it is still right."""
        lanes = [lane for lane in self._lanes if lane.backend.kind == kind]
        if lanes and all(lane.problem is not None for lane in lanes):
            seen = [digest for lane in lanes if (digest := lane.digest_of(model)) is not None]
            if seen:
                return seen[0]
            raise Unavailable("; ".join(lane.problem or "" for lane in lanes), code=f"{kind}_down")
        raise NotFound(f"model '{model}' not found", code="model_not_found", param="model")

    def known_digest(self, kind: str, model: str) -> str | None:
        """The digest, if it was asked for lately."""
        now = time.monotonic()
        for lane in self._lanes:
            if lane.backend.kind == kind and lane.problem is None and now < lane.digests_until:
                digest = lane.digest_of(model)
                if digest is not None:
                    return digest
        return None

    async def _refresh_digests(self) -> None:
        """Ask all lanes that are due. Callers at the same time share one round."""
        if self._refresh is None:
            self._refresh = asyncio.ensure_future(self._ask_all())
            self._refresh.add_done_callback(self._refreshed)
        await asyncio.shield(self._refresh)

    def _refreshed(self, _: asyncio.Future[None]) -> None:
        self._refresh = None

    async def _ask_all(self) -> None:
        now = time.monotonic()
        due = [lane for lane in self._lanes if now >= lane.digests_until and lane.problem is None]
        await asyncio.gather(*(self._ask(lane) for lane in due))

    async def _ask(self, lane: Lane) -> None:
        until = time.monotonic() + self._limits.digest_ttl_s
        try:
            models = await lane.backend.models()
        except PlatformError as error:
            self._set_aside(lane, error.message)
        else:
            lane.digests = {info.name: info.digest for info in models}
            lane.digests_until = until
            self._take_back(lane)

    async def models(self) -> list[ModelInfo]:
        """The models of all backends that answer."""
        await self._refresh_digests()
        found = {name: digest for lane in self._lanes for name, digest in lane.digests.items()}
        return [ModelInfo(name, digest) for name, digest in sorted(found.items())]

    # --- health -----------------------------------------------------------------------------

    def _set_aside(self, lane: Lane, problem: str) -> None:
        if lane.problem is None:
            log.warning("backend set aside", backend=lane.backend.name, reason=problem)
            self._tasks.start(self._probe(lane), name=f"probe {lane.backend.name}")
        lane.problem = problem
        lane.digests_until = 0.0

    def _take_back(self, lane: Lane) -> None:
        if lane.problem is not None:
            log.info("backend in use again", backend=lane.backend.name)
        lane.problem = None
        self._pump()

    async def _probe(self, lane: Lane) -> None:
        while lane.problem is not None:
            await asyncio.sleep(self._limits.probe_interval_s)
            await self._ask(lane)

    async def ping(self) -> None:
        """Raise, with the reasons, unless one backend answers."""
        await self._refresh_digests()
        if all(lane.problem is not None for lane in self._lanes):
            raise Unavailable("; ".join(self.problems.values()))

    # --- the queue --------------------------------------------------------------------------

    def submit(self, plan: Plan, texts: Sequence[str]) -> list[Flight]:
        """Queue texts. Raises `Overloaded` when too many wait: then none of these is queued."""
        if self._waiting + len(texts) > self._limits.waiting_max:
            raise Overloaded(f"{self._waiting} texts wait; at most {self._limits.waiting_max} may")
        loop = asyncio.get_running_loop()
        flights = [Flight(plan, text, loop.create_future()) for text in texts]
        self._queues.setdefault(plan, deque()).extend(flights)
        self._waiting += len(flights)
        self._pump()
        return flights

    def _requeue(self, flights: Sequence[Flight]) -> None:
        self._queues.setdefault(flights[0].plan, deque()).extendleft(reversed(flights))
        self._waiting += len(flights)
        self._pump()

    def _pump(self) -> None:
        """Send what can be sent. The plan that was served last goes to the end."""
        for plan in list(self._queues):
            while self._queues.get(plan) and (lane := self._free_lane(plan)) is not None:
                batch = self._take(self._queues[plan])
                if batch:
                    self._launch(lane, plan, batch)
                if self._queues[plan]:
                    self._queues.move_to_end(plan)
            if not self._queues[plan]:
                del self._queues[plan]

    def _launch(self, lane: Lane, plan: Plan, flights: list[Flight]) -> None:
        lane.in_flight += 1
        batch = Batch(flights)
        for flight in flights:
            flight.batch = batch
        batch.task = self._tasks.start(self._fly(lane, plan, flights), name="embed batch")

    def abandon(self, flight: Flight) -> None:
        """Nobody waits for this one any more. When that is so for its whole batch, the call is ended."""
        if flight.batch is not None and flight.batch.abandoned and flight.batch.task is not None:
            flight.batch.task.cancel()

    def _free_lane(self, plan: Plan) -> Lane | None:
        suited = [lane for lane in self._lanes if lane.backend.kind == plan.kind and self._serves(lane, plan)]
        if not suited:
            self._give_up(plan)
            return None
        free = [lane for lane in suited if lane.in_flight < self._limits.concurrency_max]
        return min(free, key=lambda lane: lane.in_flight, default=None)

    def _serves(self, lane: Lane, plan: Plan) -> bool:
        return lane.problem is None and lane.digest_of(plan.model) == plan.digest

    def _give_up(self, plan: Plan) -> None:
        reasons = "; ".join(self.problems.values())
        error = (
            Unavailable(reasons, code=f"{plan.kind}_down")
            if reasons
            else Overloaded(f"model '{plan.model}' is being replaced; retry", code="model_changed")
        )
        for flight in self._queues[plan]:
            flight.fail(error)
        self._waiting -= len(self._queues[plan])
        self._queues[plan].clear()

    def _take(self, queue: deque[Flight]) -> list[Flight]:
        """The next batch, without texts that nobody waits for any more."""
        batch: list[Flight] = []
        tokens = 0
        while queue and len(batch) < self._limits.batch_items_max:
            flight = queue[0]
            if batch and tokens + flight.tokens_estimate > self._limits.batch_tokens_max:
                break
            queue.popleft()
            self._waiting -= 1
            if not flight.waiters:
                self._metrics.abandoned.inc()
                flight.fail(Abandoned("nobody waited any more"))
                continue
            tokens += flight.tokens_estimate
            batch.append(flight)
        return batch

    # --- a batch ----------------------------------------------------------------------------

    async def _fly(self, lane: Lane, plan: Plan, flights: list[Flight]) -> None:
        try:
            await self._check_once(lane, plan)
            await self._send(lane, plan, flights)
        except (Unavailable, UpstreamTimeout, Overloaded) as error:
            self._retry_elsewhere(lane, flights, error)
        except Exception as error:  # noqa: BLE001 - every waiter gets it, whatever it is
            for flight in flights:
                flight.fail(error)
        except asyncio.CancelledError:
            for flight in flights:
                flight.fail(Abandoned("nobody waited any more"))
            raise
        finally:
            lane.in_flight -= 1
            self._pump()

    def _retry_elsewhere(self, lane: Lane, batch: list[Flight], error: PlatformError) -> None:
        if not isinstance(error, Overloaded):
            self._set_aside(lane, error.message)
        again = [flight for flight in batch if not flight.done.done()]
        for flight in again:
            flight.tries += 1
        spent = [flight for flight in again if flight.tries >= self._limits.tries_max]
        for flight in spent:
            flight.fail(error)
        if rest := [flight for flight in again if flight.tries < self._limits.tries_max]:
            self._requeue(rest)

    async def _send(self, lane: Lane, plan: Plan, batch: list[Flight]) -> None:
        """Compute a batch; when an item in it is refused, its halves, so that only that one fails."""
        try:
            computed = await self._call(lane, plan, batch)
        except ItemsRefused as error:
            if len(batch) == 1:
                cause = error.cause
                batch[0].fail(cause)
                return
            middle = len(batch) // 2
            await self._send(lane, plan, batch[:middle])
            await self._send(lane, plan, batch[middle:])
            return
        texts = [flight.text for flight in batch]
        rows = computed.vectors.astype("<f4", copy=False)
        for flight, row, tokens in zip(batch, rows, apportioned(computed.prompt_tokens, texts), strict=True):
            flight.succeed(Entry(row.tobytes(), tokens))

    async def _call(self, lane: Lane, plan: Plan, batch: list[Flight]) -> Computed:
        started = time.perf_counter()
        for flight in batch:
            flight.sent_at = flight.sent_at or started
            self._metrics.queue_seconds.observe(started - flight.queued_at)
        self._metrics.calls.inc()
        self._metrics.batch_texts.observe(len(batch))
        try:
            computed = await lane.backend.embed(
                plan.model, [flight.text for flight in batch], truncate=plan.truncate
            )
            await self._confirm(lane, plan)
        except NotFound:
            lane.digests_until = 0.0
            raise
        except PlatformError:
            self._metrics.failures.inc()
            raise
        finally:
            self._metrics.upstream_seconds.observe(time.perf_counter() - started)
        return computed

    async def _confirm(self, lane: Lane, plan: Plan) -> None:
        """Raise `Overloaded` if the model was replaced: then nobody knows which one has answered.

        A look before the call alone would let vectors of a new model in under the old one's digest.
        """
        if lane.backend.pinned:
            return
        await self._ask(lane)
        if lane.problem is not None:
            raise Unavailable(lane.problem, code=f"{plan.kind}_down")
        if lane.digest_of(plan.model) != plan.digest:
            raise Overloaded(
                f"model '{plan.model}' was replaced during the call; retry", code="model_changed"
            )

    async def _check_once(self, lane: Lane, plan: Plan) -> None:
        """Batches have differed from single texts before: a backend where they do is not used for a model."""
        if plan.digest in lane.trusted:
            return
        together = (await lane.backend.embed(plan.model, PROBES, truncate=True)).vectors
        alone = [(await lane.backend.embed(plan.model, [text], truncate=True)).vectors[0] for text in PROBES]
        norms = np.linalg.norm(together, axis=1) * np.linalg.norm(alone, axis=1)
        worst = float(np.min(np.sum(together * np.asarray(alone), axis=1) / norms))
        if worst < COSINE_MIN:
            raise UpstreamError(
                f"{lane.backend.name} gives other vectors in a batch than alone (cosine {worst:.4f}, at least"
                f" {COSINE_MIN} is needed), so it is not used for '{plan.model}'",
                code="batch_differs",
            )
        lane.trusted.add(plan.digest)

    async def close(self) -> None:
        """Stop what is under way; whoever waits is told that we are going."""
        await self._tasks.close()
        for queue in self._queues.values():
            for flight in queue:
                flight.fail(Unavailable("shutting down"))
        self._queues.clear()
