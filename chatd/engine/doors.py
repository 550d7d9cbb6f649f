"""Whether a target may be asked now, and all that has to be held while it is."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from chatd.engine.attempts import Attempt
from chatd.engine.budget import Ledger
from chatd.engine.calls import Call, Order
from chatd.engine.candidates import Standing, Standings, Target, lines_of
from chatd.engine.config import Breaking, ProviderSpec
from chatd.engine.limits import Lease, Line, Lines, lease, try_lease
from chatd.engine.retry import Course
from services.errors import Overloaded, PlatformError, Unavailable

MILLION: Final = 1_000_000
TARGETS_MAX: Final = 1024
"""So many targets' lines are remembered."""


@dataclass(frozen=True, slots=True)
class Door:
    """A target that may be asked as soon as its lines let us in."""

    target: Target
    standing: Standing
    lines: Sequence[Line]
    tokens: int
    limited: bool
    price: float | None


class Doors:
    """Standings, lines and the ledger: everything that is shared between requests."""

    def __init__(self, standings: Standings, lines: Lines, ledger: Ledger) -> None:
        self.standings = standings
        self.lines = lines
        self.ledger = ledger
        self._before: dict[str, tuple[ProviderSpec, list[Line]]] = {}

    def standing(self, target: Target, rules: Breaking) -> Standing:
        return self.standings.of(target, rules)

    def lacks(self, target: Target, order: Order) -> list[str]:
        """What of a request keeps a target from being asked."""
        lacking = target.provider.lacking(order.request)
        return [lack.param for lack in lacking if not (lack.droppable and order.caller.allow_drop)]

    async def enter(self, call: Call, course: Course, *, stream: bool, until: float | None) -> Attempt:
        """An attempt at the first target that has room, or, when none has, at the first that may be asked.

        Raises `Overloaded` when too many wait already, or for too long, or the budget does not suffice;
        `Unavailable` when the circuits of all targets are open.
        """
        while True:
            doors, refusals = self._open(call, course)
            if not doors:
                raise refusals[0]
            for door in doors:
                if (attempt := self._at_once(call, course, door, stream=stream)) is not None:
                    return attempt
            held = await _queue(doors[0], until)
            if attempt := self._begin(call, course, doors[0], held, stream=stream):
                return attempt
            # The circuit has opened, or the money has gone, while we waited: look again.

    def beside(self, call: Call, course: Course, running: Attempt) -> Attempt | None:
        """A second attempt beside one that is under way, where another target has room for it at once."""
        if course.spent:
            return None
        doors, _ = self._open(call, course)
        for door in doors:
            if door.target.id == running.target.id:
                continue
            if (attempt := self._at_once(call, course, door, stream=True)) is not None:
                return attempt
        return None

    def obstacle(self, call_order: Order, target: Target, *, others: bool) -> PlatformError | None:
        """Why a target is passed over; None when it may be asked."""
        standing = self.standing(target, call_order.snapshot.config.breaker)
        if (wait_s := standing.breaker.wait_s) > 0:
            return Unavailable(
                f"{target.id} has failed too often, last with `{standing.last_failure}`;"
                f" its circuit stays open for {wait_s:.1f} s",
                code="circuit_open",
                retry_after_s=wait_s,
            )
        held_s = standing.held_s
        if held_s > (0.0 if others else target.spec.retries.backoff_max_s):
            return Overloaded(
                f"{target.provider.name} asked to be left alone for another {held_s:.1f} s",
                code="upstream_rate_limited",
                retry_after_s=held_s,
            )
        return None

    def tokens(self, order: Order, target: Target) -> int:
        """A guess at the tokens of a call, where somebody limits them."""
        own = target.spec.models.get(target.model)
        if target.spec.tpm is None and (own is None or own.tpm is None):
            return 0
        return order.tokens_guessed

    def price(self, order: Order, target: Target) -> float | None:
        """The most that a call may cost, in US dollars; None where there is no price."""
        prices = order.snapshot.config.price_of(target.provider.name, target.model)
        if prices is None:
            return None
        return (
            order.tokens_guessed
            * max((one.usd_per_million for one in prices.values()), default=0.0)
            / MILLION
        )

    def _open(self, call: Call, course: Course) -> tuple[list[Door], list[PlatformError]]:
        order = call.order
        others = len(course.left) > 1
        rules = order.snapshot.config.budgets
        limited = self.ledger.left(call.origin.principal, rules) is not None
        doors: list[Door] = []
        refusals: list[PlatformError] = []
        for target in course.left:
            refusal = self.obstacle(order, target, others=others)
            price = self.price(order, target) if limited and refusal is None else None
            if limited and refusal is None:
                refusal = self.ledger.refusal(call.origin.principal, price, rules)
            if refusal is not None:
                refusals.append(refusal)
                continue
            standing = self.standing(target, order.snapshot.config.breaker)
            tokens = self.tokens(order, target)
            doors.append(Door(target, standing, self.before(target), tokens, limited, price))
        return doors, refusals

    def before(self, target: Target) -> list[Line]:
        """The lines before a target."""
        known = self._before.get(target.id)
        if known is not None and known[0] is target.spec:
            return known[1]
        if len(self._before) >= TARGETS_MAX:
            self._before.clear()
        lines = lines_of(target, self.lines)
        self._before[target.id] = target.spec, lines
        return lines

    def _at_once(self, call: Call, course: Course, door: Door, *, stream: bool) -> Attempt | None:
        if door.standing.held_s > 0:
            return None
        held = try_lease(door.lines, door.tokens)
        return None if held is None else self._begin(call, course, door, held, stream=stream)

    def _begin(self, call: Call, course: Course, door: Door, held: Lease, *, stream: bool) -> Attempt | None:
        """All that an attempt holds, or nothing of it."""
        trial = door.standing.breaker.enter()
        if trial is None:
            held.release()
            return None
        reservation = None
        if door.limited:
            who = call.origin.principal
            if self.ledger.refusal(who, door.price, call.order.snapshot.config.budgets) is not None:
                trial.close()
                held.release()
                return None
            reservation = self.ledger.reserve(who, door.price)
        attempt = Attempt(
            door.target,
            course.begin(door.target),
            standing=door.standing,
            trial=trial,
            lease=held,
            reservation=reservation,
            stream=stream,
        )
        call.attempts.append(attempt)
        return attempt


async def _queue(door: Door, until: float | None) -> Lease:
    spec = door.target.spec
    limit_s = spec.waiting_timeout_s
    if until is not None:
        limit_s = min(limit_s, max(0.0, until - time.monotonic()))
    try:
        async with asyncio.timeout(limit_s):
            if (held_s := door.standing.held_s) > 0:
                await asyncio.sleep(held_s)
            return await lease(door.lines, door.tokens)
    except TimeoutError:
        raise Overloaded(
            f"{door.target.provider.name} had no place for this call within {limit_s:.3g} s",
            code="provider_busy",
        ) from None
