"""Who may answer a request, and in which order they are asked."""

import math
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from chatd.backends import Provider
from chatd.engine.breaker import Breaker
from chatd.engine.config import Breaking, ProviderSpec, Snapshot
from chatd.engine.limits import Bounds, Line, Lines
from services.errors import NotFound

Strategy = Literal["ordered", "weighted", "least_busy", "fastest"]

STANDINGS_MAX: Final = 1024
"""So many models are remembered while nobody asks them."""

SMOOTHING: Final = 0.2
"""The weight of the newest call in a candidate's time to answer."""

STALE_S: Final = 60.0
"""A time to answer that is older says nothing, so that a slow candidate gets another chance."""


@dataclass(frozen=True, slots=True)
class Target:
    """One model of one provider."""

    provider: Provider
    spec: ProviderSpec
    model: str
    weight: float = 1.0

    @property
    def id(self) -> str:
        return f"{self.provider.name}/{self.model}"


@dataclass(frozen=True, slots=True)
class Route:
    """What a model id stands for. `hedge_s` is the silence after which a second target is asked beside."""

    asked: str
    targets: tuple[Target, ...]
    strategy: Strategy = "ordered"
    context: tuple[Target, ...] = ()
    policy: tuple[Target, ...] = ()
    hedge_s: float | None = None
    alias: bool = False


def route(snapshot: Snapshot, asked: str) -> Route:
    """Resolve a model id: an alias, `provider/model`, or a bare name. Raises `NotFound`."""
    alias = snapshot.config.aliases.get(asked)
    if alias is None:
        return Route(asked, (_target(snapshot, asked, asked),))
    hedge_ms = alias.hedge_first_token_ms
    return Route(
        asked,
        tuple(_target(snapshot, one.model, asked, one.weight) for one in alias.candidates),
        alias.strategy,
        tuple(_target(snapshot, model, asked) for model in alias.fallbacks_context),
        tuple(_target(snapshot, model, asked) for model in alias.fallbacks_policy),
        hedge_s=hedge_ms / 1000 if hedge_ms is not None else None,
        alias=True,
    )


def _target(snapshot: Snapshot, model: str, asked: str, weight: float = 1.0) -> Target:
    head, slash, rest = model.partition("/")
    name, bare = (head, rest) if slash else (snapshot.config.dispatch.default_provider, model)
    provider, spec = snapshot.providers.get(name), snapshot.config.providers.get(name)
    if provider is None or spec is None or not bare:
        known = [f"`{known}/…`" for known in snapshot.providers]
        known += [f"`{alias}`" for alias in snapshot.config.aliases]
        raise NotFound(
            f"no provider {name!r} for the model {asked!r}; there are: {', '.join(known)}",
            code="model_not_found",
            param="model",
        )
    return Target(provider, spec, bare, weight)


@dataclass(slots=True)
class _Smoothed:
    """A time that follows the latest calls, and is forgotten when there are none."""

    seconds: float = 0.0
    seen: float = float("-inf")

    def add(self, seconds: float, now: float) -> None:
        old = now - self.seen > STALE_S
        self.seconds = seconds if old else self.seconds + SMOOTHING * (seconds - self.seconds)
        self.seen = now

    def known(self, now: float) -> float | None:
        return self.seconds if now - self.seen <= STALE_S else None


@dataclass(slots=True)
class Standing:
    """How a target has done lately. `last_failure` is the code of the last one that its circuit counts."""

    breaker: Breaker
    clock: Callable[[], float]
    in_flight: int = 0
    held_until: float = 0.0
    last_failure: str = ""
    _first_token: _Smoothed = field(default_factory=_Smoothed)
    _whole: _Smoothed = field(default_factory=_Smoothed)

    @property
    def held_s(self) -> float:
        """Seconds for which the provider asked to be left alone."""
        return max(0.0, self.held_until - self.clock())

    def hold(self, seconds: float) -> None:
        self.held_until = max(self.held_until, self.clock() + seconds)

    def answered(self, seconds: float, *, stream: bool) -> None:
        (self._first_token if stream else self._whole).add(seconds, self.clock())

    def answers_in_s(self, *, stream: bool) -> float | None:
        """How long it takes to answer, or to begin a stream; None when that is not known."""
        return (self._first_token if stream else self._whole).known(self.clock())


class Standings:
    """The standing of every target lately asked. Model names come from callers, so they are bounded."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._standings: OrderedDict[str, Standing] = OrderedDict()

    def of(self, target: Target, rules: Breaking) -> Standing:
        standing = self._standings.get(target.id)
        if standing is None:
            standing = Standing(Breaker(rules, self._clock), self._clock)
            self._standings[target.id] = standing
            self._forget()
        else:
            standing.breaker.rules = rules
            self._standings.move_to_end(target.id)
        return standing

    def all(self) -> Iterable[tuple[str, Standing]]:
        return self._standings.items()

    def _forget(self) -> None:
        excess = len(self._standings) - STANDINGS_MAX
        if excess > 0:
            idle = [name for name, one in self._standings.items() if not one.in_flight]
            for name in idle[:excess]:
                del self._standings[name]


def lines_of(target: Target, lines: Lines) -> list[Line]:
    """The doors before a target, the narrower one first."""
    spec = target.spec
    doors = []
    if (own := spec.models.get(target.model)) is not None:
        bounds = Bounds(own.concurrency_max, spec.waiting_max, own.rpm, own.tpm)
        doors.append(lines.of(target.id, bounds))
    bounds = Bounds(spec.concurrency_max, spec.waiting_max, spec.rpm, spec.tpm)
    doors.append(lines.of(target.provider.name, bounds))
    return doors


def ranked(
    targets: Sequence[Target],
    strategy: Strategy,
    standing: Callable[[Target], Standing],
    *,
    stream: bool,
    draw: Callable[[], float] = random.random,
) -> list[Target]:
    """The targets in the order in which they are asked. Equals stay in the order of the configuration."""
    match strategy:
        case "ordered":
            return list(targets)
        case "weighted":
            # Each draws a time to arrive, sooner with more weight: a weighted order without repetition.
            return sorted(targets, key=lambda target: _exponential(draw()) / target.weight)
        case "least_busy":
            return sorted(targets, key=lambda target: standing(target).in_flight)
        case "fastest":
            # Who is not known yet comes first, and is known then.
            return sorted(targets, key=lambda target: standing(target).answers_in_s(stream=stream) or 0.0)


def _exponential(uniform: float) -> float:
    return -math.log(1.0 - uniform)
