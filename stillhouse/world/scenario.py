"""The demo's cast: workers placed on the roster so that its order can be filled, and wrongly filled."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import pyarrow as pa

from schemas.artifacts import JobOrder
from stillhouse.world.catalogue import DEMO_ROLE
from stillhouse.world.chance import birthday_years_before
from stillhouse.world.orders import demo_order
from stillhouse.world.records import Scenario, Spec, Trap
from stillhouse.world.roster import BATCH_ROWS, FIRST_WORKER, SCHEMA, as_rows

_NEARBY: Final = ("Perrysburg", "OH", "43551")
_NAMESAKE: Final = ("Toledo", "OR", "97391")
_HOME_ZIP: Final = "43607"
_OTHER_ORDER: Final = "JO-19999999"
_AGE_MIN: Final = 18


@dataclass(frozen=True, slots=True)
class _Part:
    """One member of the cast: what makes this worker special, and the finding code if that is a fault."""

    why: str
    change: Callable[["_Stage"], dict[str, Any]]
    code: str | None = None


class _Stage:
    """What the parts refer to: the order, its first day and its hours."""

    def __init__(self, order: JobOrder) -> None:
        self.order = order
        # In UTC, where hours can be added: local ones jump on the night the clocks change.
        self.start, self.end = order.start.astimezone(UTC), order.end.astimezone(UTC)
        self.first_day, self.last_day = order.start.date(), order.end.date()

    def day(self, days: int) -> date:
        return self.first_day + timedelta(days=days)

    def booked(self, order_id: str, start: datetime, hours: float) -> dict[str, Any]:
        """An assignment of that many hours."""
        end = start + timedelta(hours=hours)
        return {"assignments": [{"order_id": order_id, "start": start, "end": end}]}

    def licensed(self, expires: date) -> dict[str, Any]:
        return {"certs": [{"code": code, "expires": expires} for code in self.order.required_certs]}

    def born(self, day_of_age: date) -> dict[str, Any]:
        """Someone who reaches the least age on that day."""
        return {"date_of_birth": birthday_years_before(day_of_age, _AGE_MIN)}


def _nothing(_: _Stage) -> dict[str, Any]:
    return {}


def _named(first: str, last: str, mail: str) -> dict[str, Any]:
    return {"first_name": first, "last_name": last, "email": mail}


def _at(place: tuple[str, str, str]) -> dict[str, Any]:
    return dict(zip(("city", "state", "zip"), place, strict=True))


_CAST: Final = (
    _Part("free", _nothing),
    _Part("free; has an inactive namesake", lambda _: _named("Dana", "O'Brien", "dana.obrien")),
    _Part("inactive", lambda _: _named("Dana", "O'Brien", "dana.obrien") | {"status": "inactive"},
          "fill.worker_inactive"),
    _Part("free, with a name full of marks", lambda _: _named("Zoë", "Núñez-Wałęsa", "zoe.nunez")),
    _Part("lives in a suburb, not in the order's city", lambda _: _at(_NEARBY), "fill.location_mismatch"),
    _Part("free", _nothing),
    _Part("certificate ran out the day before", lambda at: at.licensed(at.day(-1)), "fill.cert_expired"),
    _Part("certificate holds through the shift's day, no longer", lambda at: at.licensed(at.last_day)),
    _Part("works elsewhere during the shift",
          lambda at: at.booked(_OTHER_ORDER, at.start + timedelta(hours=2), 8), "fill.double_booked"),
    _Part("another job ends the moment this one starts",
          lambda at: at.booked(_OTHER_ORDER, at.start - timedelta(hours=8), 8)),
    _Part("a night shift elsewhere runs half an hour into this one",
          lambda at: at.booked(_OTHER_ORDER, at.start - timedelta(hours=8), 8.5), "fill.double_booked"),
    _Part("free", _nothing),
    _Part("the client does not want this worker back", lambda at: {"blocked_clients": [at.order.client_id]},
          "fill.client_blocked"),
    _Part("turns 18 on the day of the shift", lambda at: at.born(at.first_day)),
    _Part("turns 18 the day after the shift", lambda at: at.born(at.day(1)), "fill.underage"),
    _Part("free", _nothing),
    _Part("never to be placed again", lambda _: {"status": "do_not_place"}, "fill.worker_inactive"),
    _Part("already booked, but for this very order",
          lambda at: at.booked(at.order.order_id, at.start, (at.end - at.start).total_seconds() / 3600)),
    _Part("has no certificate", lambda _: {"certs": []}, "fill.cert_missing"),
    _Part("lives in a namesake of the city", lambda _: _at(_NAMESAKE), "fill.location_mismatch"),
    _Part("holds the certificate but does other work", lambda _: {"roles": ["picker packer"]},
          "fill.role_mismatch"),
    _Part("free", _nothing),
)  # fmt: skip


class Cast:
    """Puts the cast on a roster: spread over it, in place of the workers drawn for those rows."""

    def __init__(self, spec: Spec) -> None:
        self._stage = _Stage(demo_order(spec.as_of))
        self._rows = {index * spec.workers // len(_CAST): part for index, part in enumerate(_CAST)}

    @property
    def scenario(self) -> Scenario:
        """The order with its valid and invalid workers."""
        ids = {f"W-{FIRST_WORKER + row}": part for row, part in self._rows.items()}
        return Scenario(
            order=self._stage.order,
            valid=tuple(worker for worker, part in ids.items() if part.code is None),
            invalid=tuple(Trap(worker, part.code, part.why) for worker, part in ids.items() if part.code),
        )

    def place(self, batch: pa.RecordBatch, number: int) -> pa.RecordBatch:
        """The batch with the cast's members in their rows."""
        pieces, done = [], 0
        for row, part in self._rows.items():
            here = row - number * BATCH_ROWS
            if 0 <= here < batch.num_rows:
                pieces += [batch.slice(done, here - done), self._play(batch.slice(here, 1), part, row)]
                done = here + 1
        if not pieces:
            return batch
        whole = pa.Table.from_batches([*pieces, batch.slice(done)]).combine_chunks()
        return whole.to_batches()[0]

    def _play(self, drawn: pa.RecordBatch, part: _Part, row: int) -> pa.RecordBatch:
        stage = self._stage
        usual = {
            "status": "active",
            "roles": [DEMO_ROLE, "material handler"] if row % 2 else [DEMO_ROLE],
            "city": stage.order.city,
            "state": stage.order.state,
            "zip": _HOME_ZIP,
            "date_of_birth": birthday_years_before(stage.day(-row % 300), 22 + row % 30),
            "blocked_clients": [],
            "assignments": [],
        }
        (person,) = as_rows(drawn)
        changes = part.change(stage)
        if "first_name" in changes:
            changes["email"] = f"{changes['email']}.{FIRST_WORKER + row}@example.com"
        player = person | usual | stage.licensed(stage.day(200 + row % 400)) | changes
        return pa.RecordBatch.from_pylist([player], schema=SCHEMA)
