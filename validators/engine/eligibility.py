"""Whether a worker may take an order's shift, and everything that stands against it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from schemas.base import JsonObject
from schemas.verdicts import FillOrder
from services.errors import InvalidRequest
from validators.backends import AssignmentFact, WorkerFacts
from validators.engine.policy import Policy
from validators.engine.shift import Shift, age_on, parse_instant

ORDERS_CACHED_MAX: Final = 1024
ZERO: Final = timedelta(0)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One thing against a worker. `evidence` repeats the facts of the roster's row that prove it."""

    code: str
    message: str
    evidence: JsonObject


@dataclass(frozen=True, slots=True)
class Order:
    """An order in the form in which workers are compared with it.

    `shift` is None if its times are no use; `untimed` names those without an offset.
    """

    order_id: str
    client_id: str
    role: str
    place: str
    certs: tuple[str, ...]
    age_min: int | None
    shift: Shift | None
    untimed: tuple[str, ...]


class OrderReader:
    """Reads orders. Many proposals are checked against one order, so the last ones are remembered."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._order: Callable[..., Order] = lru_cache(maxsize=ORDERS_CACHED_MAX)(self._read)

    def read(self, asked: FillOrder) -> Order:
        """Raises `InvalidRequest` for a shift that ends before it begins."""
        return self._order(
            asked.order_id,
            asked.client_id,
            asked.role,
            asked.city,
            asked.state,
            asked.start,
            asked.end,
            tuple(asked.required_certs),
            asked.age_min,
        )

    def _read(  # noqa: PLR0917 - the fields of an order, by which it is remembered
        self,
        order_id: str,
        client_id: str,
        role: str,
        city: str,
        state: str,
        start: str,
        end: str,
        certs: tuple[str, ...],
        age_min: int | None,
    ) -> Order:
        times = {"start": parse_instant(start), "end": parse_instant(end)}
        shift = None
        if (begins := times["start"]) is not None and (ends := times["end"]) is not None:
            if ends <= begins:
                raise InvalidRequest("`context.order.end` is not after `start`", param="context.order.end")
            shift = Shift.at(begins, ends, self._policy.zones(city, state))
        canonical = self._policy.role(role)
        ages = [age for age in (age_min, self._policy.age_min_by_role.get(canonical)) if age is not None]
        return Order(
            order_id,
            client_id,
            canonical,
            self._policy.place(city, state),
            tuple(dict.fromkeys(certs)),
            max(ages, default=None),
            shift,
            tuple(name for name, instant in times.items() if instant is None),
        )


class Eligibility:
    """The rules of one order. What depends on the shift is left out when the order's times are unusable."""

    def __init__(self, order: Order, policy: Policy) -> None:
        self._order = order
        self._policy = policy
        self._rules = policy.file.fill
        self._travel = timedelta(minutes=self._rules.travel_minutes)

    def obstacles(self, worker: WorkerFacts) -> list[Obstacle]:
        """Everything against this worker: nothing, for most who are asked about."""
        found: list[Obstacle] = []
        if worker.status != "active":
            message = f"the worker's status is `{worker.status}`; only active workers are placed"
            found.append(
                Obstacle("fill.worker_inactive", message, {"row": worker.row, "status": worker.status})
            )
        if (client := self._order.client_id) in worker.blocked_clients:
            message = "the worker may not be sent to this client"
            found.append(Obstacle("fill.client_blocked", message, {"row": worker.row, "client_id": client}))
        if not self._has_role(worker):
            message = f"the worker does not have the role `{self._order.role}`"
            evidence: JsonObject = {"row": worker.row, "roles": list(worker.roles)}
            found.append(Obstacle("fill.role_mismatch", message, evidence))
        if self._policy.place(worker.city, worker.state) != self._order.place:
            message = "the worker is not in the order's city and state"
            evidence = {"row": worker.row, "city": worker.city, "state": worker.state}
            found.append(Obstacle("fill.location_mismatch", message, evidence))
        if self._order.certs:
            found.extend(self._certificates(worker))
        if (shift := self._order.shift) is not None:
            if worker.assignments:
                found.extend(self._bookings(worker, shift))
            found.extend(self._hours(worker, shift))
            if self._order.age_min is not None:
                found.extend(self._age(worker, shift, self._order.age_min))
        return found

    def _has_role(self, worker: WorkerFacts) -> bool:
        wanted, canonical = self._order.role, self._policy.role
        return any(role == wanted or canonical(role) == wanted for role in worker.roles)

    def _certificates(self, worker: WorkerFacts) -> Iterator[Obstacle]:
        shift = self._order.shift
        for code in self._order.certs:
            held = [cert.expires for cert in worker.certs if cert.code == code]
            if not held:
                message = "the worker lacks a certificate that the order requires"
                yield Obstacle("fill.cert_missing", message, {"row": worker.row, "cert": code})
                continue
            ends = [day for day in held if day is not None]
            if shift is not None and len(ends) == len(held) and max(ends) < shift.last_day:
                evidence: JsonObject = {
                    "row": worker.row,
                    "cert": code,
                    "expires": max(ends).isoformat(),
                    "last_day": shift.last_day.isoformat(),
                }
                message = "a required certificate does not hold on the shift's last day"
                yield Obstacle("fill.cert_expired", message, evidence)

    def _others(self, worker: WorkerFacts) -> Iterator[AssignmentFact]:
        return (fact for fact in worker.assignments if fact.order_id != self._order.order_id)

    def _bookings(self, worker: WorkerFacts, shift: Shift) -> Iterator[Obstacle]:
        for other in self._others(worker):
            if shift.overlaps(other.start, other.end):
                message, kind = "the worker has another assignment then", "overlap"
            elif self._travel and shift.overlaps(other.start - self._travel, other.end + self._travel):
                minutes = self._rules.travel_minutes
                message = f"the worker has another assignment less than {minutes} minutes before or after"
                kind = "travel"
            else:
                continue
            evidence: JsonObject = {
                "row": worker.row,
                "kind": kind,
                "order_id": other.order_id,
                "start": other.start.isoformat(),
                "end": other.end.isoformat(),
            }
            yield Obstacle("fill.double_booked", message, evidence)

    def _hours(self, worker: WorkerFacts, shift: Shift) -> Iterator[Obstacle]:
        most = self._rules.week_hours_max
        for monday, begin, end in shift.weeks(self._policy.first_weekday) if most else ():
            worked = _within(shift.start, shift.end, begin, end)
            for other in self._others(worker):
                worked += _within(other.start, other.end, begin, end)
            hours = worked / timedelta(hours=1)
            if hours > most:
                evidence: JsonObject = {
                    "row": worker.row,
                    "week": monday.isoformat(),
                    "hours": round(hours, 2),
                    "hours_max": most,
                }
                message = f"with this shift the worker has {hours:g} hours in a week of {most:g} allowed"
                yield Obstacle("fill.hours_exceeded", message, evidence)

    def _age(self, worker: WorkerFacts, shift: Shift, least: int) -> Iterator[Obstacle]:
        age = None if worker.date_of_birth is None else age_on(shift.first_day, worker.date_of_birth)
        if age is None or age < least:
            known = "the worker's age is not known" if age is None else "the worker is too young"
            evidence: JsonObject = {"row": worker.row, "age": age, "age_min": least}
            yield Obstacle("fill.underage", f"{known}; the order asks for at least {least} years", evidence)


def _within(start: datetime, end: datetime, begin: datetime, until: datetime) -> timedelta:
    """How much of `[start, end)` lies in `[begin, until)`."""
    return max(ZERO, min(end, until) - max(start, begin))
