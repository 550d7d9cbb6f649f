"""What may be wrong with a proposal: with a worker in it, with their name, with the whole."""
# ruff: noqa: ARG001 - operators are called alike, whatever they need of it

import random
from collections.abc import Callable, Sequence
from typing import Any

from tests.mutation.agency import DAY, NAMESAKES, OTHER_ROLES, Agency, Worker
from tests.mutation.cases import Case, add_fill, elsewhere, fit
from tests.mutation.operator import Apply, Catalogue, Unfit, claim, order_of, slot, untouched

DEFECTS = Catalogue()

Spoil = Callable[[random.Random, Worker, Case], None]


def _spoiled(code: str, part: str, spoil: Spoil) -> Apply:
    def apply(agency: Agency, case: Case) -> None:
        number = slot(agency, case, part)
        case.touched.add(f"{number}:{part}")
        spoil(agency.rng, case.workers[number], case)
        case.errors.append((code, f"/fills/{number}/worker_id"))

    return apply


def _required(case: Case, code: str) -> None:
    """Make the order ask for a certificate that everybody in it holds to the last day."""
    order, when = order_of(case), case.shift
    assert when is not None
    if code not in order.setdefault("required_certs", []):
        order["required_certs"] = [*order["required_certs"], code]
        for worker in case.workers:
            worker.certs.append((code, when.last_day))


def _cert_missing(near: Sequence[str]) -> Spoil:
    def spoil(rng: random.Random, worker: Worker, case: Case) -> None:
        _required(case, "OSHA-10")
        worker.certs = [held for held in worker.certs if held[0] != "OSHA-10"]
        worker.certs += [(code, None) for code in near]

    return spoil


def _cert_expired(days: int) -> Spoil:
    def spoil(rng: random.Random, worker: Worker, case: Case) -> None:
        _required(case, "CPR")
        assert case.shift is not None
        worker.certs = [held for held in worker.certs if held[0] != "CPR"]
        worker.certs.append(("CPR", case.shift.last_day - DAY * days))

    return spoil


def _cert_first_day(rng: random.Random, worker: Worker, case: Case) -> None:
    assert case.shift is not None
    if case.shift.first_day == case.shift.last_day:
        raise Unfit
    _cert_expired((case.shift.last_day - case.shift.first_day).days)(rng, worker, case)


def _minor(days: int) -> Spoil:
    def spoil(rng: random.Random, worker: Worker, case: Case) -> None:
        assert case.shift is not None
        order, birthday = order_of(case), case.shift.first_day + DAY * days
        if (birthday.month, birthday.day) == (2, 29) or "age_min" not in order:
            raise Unfit
        worker.date_of_birth = birthday.replace(year=birthday.year - order["age_min"])

    return spoil


def _overlap(start: int | None, end: int | None, *, from_end: bool = False) -> Spoil:
    """An assignment from `start` minutes after the shift's start to `end` minutes after its end."""

    def spoil(rng: random.Random, worker: Worker, case: Case) -> None:
        when = case.shift
        assert when is not None
        begins = when.after(-1) if from_end else when.before(-(start or 0))
        ends = when.before(-1) if end is None else when.after(end)
        worker.assignments.append(("X-other", begins, ends))

    return spoil


def _set(key: str, *values: Any) -> Spoil:
    def spoil(rng: random.Random, worker: Worker, case: Case) -> None:
        setattr(worker, key, rng.choice(values))

    return spoil


def _blocked(rng: random.Random, worker: Worker, case: Case) -> None:
    worker.blocked_clients = [*worker.blocked_clients, order_of(case)["client_id"], "C-99"]


def _other_place(rng: random.Random, worker: Worker, case: Case) -> None:
    assert case.shift is not None
    worker.city, worker.state = elsewhere(rng, case.shift)


def _same_city_other_state(rng: random.Random, worker: Worker, case: Case) -> None:
    worker.state = "VT"


def _same_state_other_city(rng: random.Random, worker: Worker, case: Case) -> None:
    worker.city = "Lower " + worker.city.strip()


WORKER_DEFECTS: tuple[tuple[str, str, str, Spoil], ...] = (
    ("fill.worker_inactive", "inactive", "status", _set("status", "inactive")),
    ("fill.worker_inactive", "do not place", "status", _set("status", "do_not_place")),
    ("fill.role_mismatch", "other roles", "roles", _set("roles", list(OTHER_ROLES[:2]))),
    ("fill.role_mismatch", "no role", "roles", _set("roles", [])),
    ("fill.role_mismatch", "near role", "roles", _set("roles", ["Forklift"], ["Nurse"], ["Cook"])),
    ("fill.location_mismatch", "other place", "place", _other_place),
    ("fill.location_mismatch", "other state", "place", _same_city_other_state),
    ("fill.location_mismatch", "other city", "place", _same_state_other_city),
    ("fill.client_blocked", "blocked", "clients", _blocked),
    ("fill.double_booked", "same hours", "booked", _overlap(0, 0)),
    ("fill.double_booked", "first minute", "booked", _overlap(-500, None)),
    ("fill.double_booked", "last minute", "booked", _overlap(0, 500, from_end=True)),
    ("fill.double_booked", "around", "booked", _overlap(-60, 60)),
    ("fill.double_booked", "within", "booked", _overlap(1, -1)),
    ("fill.cert_missing", "none", "osha", _cert_missing(())),
    ("fill.cert_missing", "another one", "osha", _cert_missing(("OSHA-100", "OSHA-1"))),
    ("fill.cert_expired", "the day before", "cpr", _cert_expired(1)),
    ("fill.cert_expired", "long ago", "cpr", _cert_expired(3_000)),
    ("fill.cert_expired", "on the first of two days", "cpr", _cert_first_day),
    ("fill.underage", "a day too young", "age", _minor(1)),
    ("fill.underage", "years too young", "age", _minor(1_000)),
)
for _code, _variant, _part, _spoil in WORKER_DEFECTS:
    DEFECTS.add("fill", _code, _variant, _spoiled(_code, _part, _spoil))


def _unless(worker_id: str, agency: Agency) -> str:
    if any(worker.worker_id == worker_id for worker in agency.workers):
        raise Unfit
    return worker_id


PHANTOMS: dict[str, Callable[[str], str]] = {
    "made up": lambda _: "W-999999",
    "case": str.swapcase,
    "space after": lambda own: own + " ",
    "no-break space before": lambda own: "\u00a0" + own,
    "zero-width": lambda own: own[:3] + "\u200b" + own[3:],
    "homograph": lambda own: own.replace("W", "\u0428").replace("5", "\uff15").replace("wrk", "\u0461rk"),
    "a digit more": lambda own: own + "0",
    "zeros less": lambda own: own.replace("000", "0"),
    "empty": lambda _: "",
}


def _phantom(change: Callable[[str], str]) -> Apply:
    def apply(agency: Agency, case: Case) -> None:
        number = untouched(agency, case)
        fill = case.artifact["fills"][number]
        fill["worker_id"] = _unless(change(fill["worker_id"]), agency)
        case.touched.add(f"{number}")
        case.errors.append(("fill.worker_unknown", f"/fills/{number}/worker_id"))

    return apply


for _variant, _change in PHANTOMS.items():
    DEFECTS.add("fill", "fill.worker_unknown", _variant, _phantom(_change))


def _misnamed(agency: Agency, case: Case) -> None:
    """The name of another, whom a loose comparison takes for the same."""
    number = slot(agency, case, "name")
    pair = agency.rng.choice(NAMESAKES)
    real, said = pair if agency.rng.random() < 0.5 else pair[::-1]
    worker = case.workers[number]
    worker.first_name, worker.last_name = real.split(" ", 1)
    case.artifact["fills"][number]["name"] = said
    case.touched.add(f"{number}:name")
    case.errors.append(("fill.name_mismatch", f"/fills/{number}/name"))


def _swapped_names(agency: Agency, case: Case) -> None:
    """Each of two is given the other's name."""
    one, other = untouched(agency, case), untouched(agency, case)
    workers = case.workers
    if one == other or workers[one].last_name == workers[other].last_name:
        raise Unfit
    for number, named in ((one, other), (other, one)):
        case.artifact["fills"][number]["name"] = workers[named].name
        case.touched.add(f"{number}")
        case.errors.append(("fill.name_mismatch", f"/fills/{number}/name"))


DEFECTS.add("fill", "fill.name_mismatch", "somebody like them", _misnamed)
DEFECTS.add("fill", "fill.name_mismatch", "two swapped", _swapped_names)


def _twice(agency: Agency, case: Case) -> None:
    number = untouched(agency, case, start=1)
    taken = {mark.partition(":")[0] for mark in case.touched}
    before = [n for n in range(number) if str(n) not in taken]
    if not before:
        raise Unfit
    first = agency.rng.choice(before)
    case.artifact["fills"][number] = {"worker_id": case.artifact["fills"][first]["worker_id"]}
    case.touched |= {f"{number}", f"{first}"}
    case.errors.append(("fill.duplicate_worker", f"/fills/{number}/worker_id"))


DEFECTS.add("fill", "fill.duplicate_worker", "again", _twice)


def _count(by: int) -> Apply:
    def apply(agency: Agency, case: Case) -> None:
        claim(case, "count")
        order = order_of(case)
        if order["count"] + by < 1:
            raise Unfit
        order["count"] += by
        case.errors.append(("fill.count_short" if by > 0 else "fill.count_over", "/fills"))

    return apply


def _one_more(agency: Agency, case: Case) -> None:
    claim(case, "count")
    add_fill(agency, case, fit(agency, case))
    case.errors.append(("fill.count_over", "/fills"))


def _one_less(agency: Agency, case: Case) -> None:
    claim(case, "count")
    gone = len(case.artifact["fills"]) - 1
    if any(mark.partition(":")[0] == str(gone) for mark in case.touched):
        raise Unfit
    case.artifact["fills"].pop()
    case.workers.pop()
    case.errors.append(("fill.count_short", "/fills"))


DEFECTS.add("fill", "fill.count_short", "one left out", _one_less)
DEFECTS.add("fill", "fill.count_short", "the order asks for one more", _count(1))
DEFECTS.add("fill", "fill.count_short", "the order asks for many more", _count(5))
DEFECTS.add("fill", "fill.count_over", "one more", _one_more)
DEFECTS.add("fill", "fill.count_over", "the order asks for one less", _count(-1))


def _other_order(change: Callable[[str], str]) -> Apply:
    def apply(agency: Agency, case: Case) -> None:
        claim(case, "order_id")
        changed = change(case.artifact["order_id"])
        if changed == case.artifact["order_id"]:
            raise Unfit
        case.artifact["order_id"] = changed
        case.errors.append(("fill.order_mismatch", "/order_id"))

    return apply


DEFECTS.add("fill", "fill.order_mismatch", "another", _other_order(lambda _: "O-0"))
DEFECTS.add("fill", "fill.order_mismatch", "case", _other_order(str.swapcase))
DEFECTS.add("fill", "fill.order_mismatch", "space", _other_order(lambda own: own + " "))
DEFECTS.add("fill", "fill.order_mismatch", "empty", _other_order(lambda _: ""))
DEFECTS.add("fill", "fill.order_mismatch", "cut", _other_order(lambda own: own[:-1]))
