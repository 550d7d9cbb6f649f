"""The backends as the pool sees them: which models they have, whether they answer and can be believed."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import structlog

from embedd.backends import Backend, BadAnswer, Computed, ItemsRefused, ModelInfo, Vectors
from embedd.engine.flights import Plan
from services.errors import NotFound, Overloaded, PlatformError, Unavailable, UpstreamError
from services.tasks import TaskSet

log = structlog.get_logger(__name__)

COSINE_MIN: Final = 0.9999
PROBES: Final = (
    "The shift begins at six in the morning.",
    "Forklift operators show their card at the gate, and sign in with the supervisor before they start.",
    "Pay day",
)
DISTRUST_S: Final = 60.0
"""A backend whose batches differ from single texts is tried again for that model after this time."""

MODEL_CHANGED: Final = "model_changed"


class Distrusted(UpstreamError):
    """A backend gives other vectors in a batch than alone, so it is not used for this model."""

    code = "batch_differs"


@dataclass(eq=False, slots=True)
class Lane:
    """One backend, with what is under way to it."""

    backend: Backend
    in_flight: int = 0
    pauses: int = 0
    """Of how many refusals, each for being busy, the pause is not over."""
    problem: str | None = None
    """Why it is set aside, or None."""
    probe: asyncio.Task[None] | None = None
    listed: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    """What it listed, without the models that it cannot be used for."""
    digests_until: float = 0.0
    dimensions: dict[str, int] = field(default_factory=dict)
    """Of the digests whose batches were found to equal single texts."""
    distrusted: dict[str, tuple[float, str]] = field(default_factory=dict)
    """Digests where they were not: until when that counts, and what was found."""
    vetting: asyncio.Lock = field(default_factory=asyncio.Lock)

    def digest_of(self, model: str) -> str | None:
        return self.digests.get(model) or self.digests.get(f"{model}:latest")

    def take_listing(self, models: Sequence[ModelInfo], *, until: float) -> None:
        """Take what the backend says it has. What is known of models that are gone is forgotten."""
        self.listed = {info.name: info.digest for info in models}
        there = set(self.listed.values())
        now = time.monotonic()
        self.dimensions = {digest: size for digest, size in self.dimensions.items() if digest in there}
        self.distrusted = {
            digest: found for digest, found in self.distrusted.items() if digest in there and now < found[0]
        }
        self._choose()
        self.digests_until = until

    def distrust(self, digest: str, reason: str) -> None:
        self.distrusted[digest] = (time.monotonic() + DISTRUST_S, reason)
        self._choose()

    def _choose(self) -> None:
        self.digests = {name: digest for name, digest in self.listed.items() if digest not in self.distrusted}

    def forget(self, model: str) -> None:
        """The backend listed this model, and has it no more."""
        self.digests = {
            name: digest for name, digest in self.digests.items() if name not in (model, f"{model}:latest")
        }
        self.digests_until = 0.0

    def reason_against(self, model: str) -> str | None:
        """Why this model is not used here though it is listed."""
        digest = self.listed.get(model) or self.listed.get(f"{model}:latest")
        return self.distrusted[digest][1] if digest in self.distrusted else None


class Lanes:
    """All backends. `on_change` is called when one may be of use again. Belongs to one event loop."""

    def __init__(
        self,
        backends: Sequence[Backend],
        tasks: TaskSet,
        on_change: Callable[[], None],
        *,
        probe_interval_s: float,
        look_timeout_s: float,
        digest_ttl_s: float,
    ) -> None:
        self._lanes = [Lane(backend) for backend in backends]
        self._tasks = tasks
        self._on_change = on_change
        self._probe_interval_s = probe_interval_s
        self._look_timeout_s = look_timeout_s
        self._digest_ttl_s = digest_ttl_s
        self._refresh: asyncio.Task[None] | None = None

    @property
    def up(self) -> int:
        """How many are in use."""
        return sum(lane.problem is None for lane in self._lanes)

    @property
    def problems(self) -> dict[str, str | None]:
        """Why each backend is set aside; None for those in use."""
        return {lane.backend.name: lane.problem for lane in self._lanes}

    def _of(self, kind: str) -> list[Lane]:
        return [lane for lane in self._lanes if lane.backend.kind == kind]

    def suited(self, plan: Plan) -> list[Lane]:
        """Those that have exactly the model of a plan, and answer."""
        return [
            lane
            for lane in self._of(plan.kind)
            if lane.problem is None and lane.digest_of(plan.model) == plan.digest
        ]

    def refusal(self, plan: Plan) -> PlatformError:
        """Why no backend is suited to a plan."""
        lanes = self._of(plan.kind)
        if any(lane.problem is None and lane.digest_of(plan.model) is not None for lane in lanes):
            return Overloaded(f"model '{plan.model}' is being replaced; retry", code=MODEL_CHANGED)
        return self._missing(plan.kind, plan.model)

    def _missing(self, kind: str, model: str) -> PlatformError:
        lanes = self._of(kind)
        for lane in lanes:
            if (reason := lane.reason_against(model)) is not None:
                return Distrusted(reason)
        down = [lane.problem for lane in lanes if lane.problem is not None]
        if len(down) == len(lanes) > 0:
            return Unavailable("; ".join(down), code=f"{kind}_down")
        if down:
            reasons = f"model '{model}' is on no backend that answers; {'; '.join(down)}"
            return Unavailable(reasons, code=f"{kind}_down")
        return NotFound(f"model '{model}' not found", code="model_not_found", param="model")

    # --- which model ------------------------------------------------------------------------

    def known_digest(self, kind: str, model: str) -> str | None:
        """The digest, if it was asked for lately."""
        now = time.monotonic()
        for lane in self._lanes:
            if lane.backend.kind == kind and lane.problem is None and now < lane.digests_until:
                digest = lane.digest_of(model)
                if digest is not None:
                    return digest
        return None

    async def digest(self, kind: str, model: str) -> str:
        """The digest behind a model's name, asked again after a while.

        When no backend answers, the digest that was last seen: what is cached under it is still right. Raises
        `NotFound`, `Unavailable`, and `Distrusted`.
        """
        known = self.known_digest(kind, model)
        if known is not None:
            return known
        await self.refresh()
        for lane in sorted(self._of(kind), key=lambda lane: lane.problem is not None):
            if (digest := lane.digest_of(model)) is not None:
                return digest
        raise self._missing(kind, model)

    async def refresh(self) -> None:
        """Ask all that are due. Callers at the same time share one round, which none of them can cancel."""
        if self._refresh is None or self._refresh.done():
            now = time.monotonic()
            due = [lane for lane in self._lanes if now >= lane.digests_until and lane.problem is None]
            if not due:
                return
            self._refresh = self._tasks.start(self._ask_all(due), name="ask for digests")
        await asyncio.wait([self._refresh])

    async def _ask_all(self, lanes: Sequence[Lane]) -> None:
        await asyncio.gather(*(self._ask(lane) for lane in lanes))

    async def _ask(self, lane: Lane) -> None:
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._look_timeout_s):
                models = await lane.backend.models()
        except TimeoutError:
            self.set_aside(lane, f"{lane.backend.name} listed no models within {self._look_timeout_s:g} s")
        except PlatformError as error:
            self.set_aside(lane, error.message)
        else:
            lane.take_listing(models, until=started + self._digest_ttl_s)
            self._take_back(lane)

    # --- health -----------------------------------------------------------------------------

    def set_aside(self, lane: Lane, problem: str) -> None:
        """Use a backend no more until it lists its models again."""
        if lane.problem is None:
            log.warning("backend set aside", backend=lane.backend.name, reason=problem)
        lane.problem = problem
        lane.digests_until = 0.0
        if lane.probe is None or lane.probe.done():
            lane.probe = self._tasks.start(self._probe(lane), name=f"probe {lane.backend.name}")

    def _take_back(self, lane: Lane) -> None:
        if lane.problem is not None:
            log.info("backend in use again", backend=lane.backend.name)
        lane.problem = None
        self._on_change()

    async def _probe(self, lane: Lane) -> None:
        while lane.problem is not None:
            await asyncio.sleep(self._probe_interval_s)
            await self._ask(lane)

    async def ping(self) -> None:
        """Raise, with the reasons, unless one backend answers."""
        await self.refresh()
        if not self.up:
            raise Unavailable("; ".join(filter(None, self.problems.values())))

    # --- belief -----------------------------------------------------------------------------

    async def confirm(self, lane: Lane, plan: Plan) -> None:
        """Raise `Overloaded` if the model was replaced: then nobody knows which one has answered.

        A look before the call alone would let vectors of a new model in under the old one's digest.
        """
        if lane.backend.pinned:
            return
        await self._ask(lane)
        if lane.problem is not None:
            raise Unavailable(lane.problem, code=f"{plan.kind}_down")
        if lane.digest_of(plan.model) != plan.digest:
            raise Overloaded(f"model '{plan.model}' was replaced during the call; retry", code=MODEL_CHANGED)

    def check_dimension(self, plan: Plan, computed: Computed) -> None:
        """Raise `BadAnswer` for vectors of another size than this digest has had before, on any backend."""
        size = computed.vectors.shape[1]
        known = self.dimension(plan.kind, plan.digest)
        if known is not None and size != known:
            raise BadAnswer(f"the backend answered vectors of {size} dimensions; '{plan.model}' has {known}")

    def dimension(self, kind: str, digest: str) -> int | None:
        """How many dimensions the vectors of a digest have, if it was in use already."""
        sizes = (lane.dimensions.get(digest) for lane in self._of(kind))
        return next((size for size in sizes if size is not None), None)

    async def vet(self, lane: Lane, plan: Plan) -> None:
        """See, once for each model, that a batch gives the vectors that its texts give alone.

        Raises `Distrusted` when it does not: batches have differed before, in Ollama and under it.
        """
        if plan.digest in lane.dimensions:
            return
        async with lane.vetting:
            if plan.digest in lane.dimensions:
                return
            try:
                together = await lane.backend.embed(plan.model, PROBES, truncate=False)
                alone = [
                    (await lane.backend.embed(plan.model, [text], truncate=False)).vectors[0]
                    for text in PROBES
                ]
            except ItemsRefused as error:
                raise error.cause from error
            self.check_dimension(plan, together)
            found = _difference(together, alone)
            if found is not None:
                reason = (
                    f"{lane.backend.name} gives other vectors in a batch than alone ({found}),"
                    f" so it is not used for '{plan.model}'"
                )
                log.error("batches differ from single texts", backend=lane.backend.name, found=found)
                lane.distrust(plan.digest, reason)
                raise Distrusted(reason)
            lane.dimensions[plan.digest] = together.vectors.shape[1]


def _difference(together: Computed, alone: Sequence[Vectors]) -> str | None:
    """How a batch differs from the same texts alone, or None."""
    sizes = {vector.shape[0] for vector in alone} | {together.vectors.shape[1]}
    if len(sizes) > 1:
        return f"{sorted(sizes)} dimensions"
    singles = np.stack(alone)
    norms = np.linalg.norm(together.vectors, axis=1) * np.linalg.norm(singles, axis=1)
    worst = float(np.min(np.sum(together.vectors * singles, axis=1) / norms))
    return None if worst >= COSINE_MIN else f"cosine {worst:.4f}, at least {COSINE_MIN} is needed"
