"""Whether a worker may take an order's shift, and everything that stands against it."""

from collections.abc import Iterator
from dataclasses import dataclass

from schemas.base import JsonObject
from schemas.verdicts import FillOrder
from services.errors import InvalidRequest
from validators.backends import WorkerFacts
from validators.engine.findings import Report
from validators.engine.policy import Policy
from validators.engine.shift import Shift, age_on, parse_instant


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One thing against a worker. `evidence` repeats the facts of the roster's row that prove it."""

    code: str
    message: str
    evidence: JsonObject


@dataclass(frozen=True, slots=True)
class Order:
    """An order in the form in which workers are compared with it; `shift` is None if its times are no use."""

    asked: FillOrder
    role: str
    place: str
    shift: Shift | None

    @classmethod
    def of(cls, asked: FillOrder, policy: Policy, report: Report) -> "Order":
        """Read an order. A time without an offset is a finding on the whole; a shift that ends too early is
        refused with `InvalidRequest`.
        """
        times = {"start": parse_instant(asked.start), "end": parse_instant(asked.end)}
        for name, instant in times.items():
            if instant is None:
                message = (
                    f"the order's `{name}` is not an ISO 8601 time with an offset (2026-11-02T06:00:00-05:00)"
                )
                report.add("schema.invalid", "", message, evidence={"context": f"/order/{name}"})
        shift = None
        if (start := times["start"]) is not None and (end := times["end"]) is not None:
            if end <= start:
                raise InvalidRequest("`context.order.end` is not after `start`", param="context.order.end")
            shift = Shift.at(start, end, policy.zones.get(policy.state(asked.state)))
        return cls(asked, policy.role(asked.role), policy.place(asked.city, asked.state), shift)


class Eligibility:
    """The rules of one order. What depends on the shift is left out when the order's times are unusable."""

    def __init__(self, order: Order, policy: Policy) -> None:
        self._order = order
        self._policy = policy

    def obstacles(self, worker: WorkerFacts) -> Iterator[Obstacle]:
        yield from self._standing(worker)
        yield from self._fitness(worker)
        yield from self._certificates(worker)
        if (shift := self._order.shift) is not None:
            yield from self._bookings(worker, shift)
            yield from self._age(worker, shift)

    def _standing(self, worker: WorkerFacts) -> Iterator[Obstacle]:
        if worker.status != "active":
            message = f"the worker's status is `{worker.status}`; only active workers are placed"
            yield Obstacle("fill.worker_inactive", message, {"row": worker.row, "status": worker.status})
        client = self._order.asked.client_id
        if client in worker.blocked_clients:
            message = "the worker may not be sent to this client"
            yield Obstacle("fill.client_blocked", message, {"row": worker.row, "client_id": client})

    def _fitness(self, worker: WorkerFacts) -> Iterator[Obstacle]:
        if self._order.role not in map(self._policy.role, worker.roles):
            message = f"the worker does not have the role `{self._order.role}`"
            yield Obstacle("fill.role_mismatch", message, {"row": worker.row, "roles": list(worker.roles)})
        if self._policy.place(worker.city, worker.state) != self._order.place:
            evidence: JsonObject = {"row": worker.row, "city": worker.city, "state": worker.state}
            yield Obstacle(
                "fill.location_mismatch", "the worker is not in the order's city and state", evidence
            )

    def _certificates(self, worker: WorkerFacts) -> Iterator[Obstacle]:
        shift = self._order.shift
        for code in dict.fromkeys(self._order.asked.required_certs):
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

    def _bookings(self, worker: WorkerFacts, shift: Shift) -> Iterator[Obstacle]:
        for assignment in worker.assignments:
            other = assignment.order_id != self._order.asked.order_id
            if other and shift.overlaps(assignment.start, assignment.end):
                evidence: JsonObject = {
                    "row": worker.row,
                    "order_id": assignment.order_id,
                    "start": assignment.start.isoformat(),
                    "end": assignment.end.isoformat(),
                }
                yield Obstacle("fill.double_booked", "the worker has another assignment then", evidence)

    def _age(self, worker: WorkerFacts, shift: Shift) -> Iterator[Obstacle]:
        least = self._order.asked.age_min
        if least is None:
            return
        age = None if worker.date_of_birth is None else age_on(shift.first_day, worker.date_of_birth)
        if age is None or age < least:
            known = "the worker's age is not known" if age is None else "the worker is too young"
            evidence: JsonObject = {"row": worker.row, "age": age, "age_min": least}
            yield Obstacle("fill.underage", f"{known}; the order asks for at least {least} years", evidence)
