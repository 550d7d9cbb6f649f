"""The people: valid where they should be, faulty in the shares that keep a validator busy."""

from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.world import Scenario, Spec, World, generate, role_catalogue
from stillhouse.world.catalogue import CERTS, ROLES, role_named
from stillhouse.world.places import AREA_CODES, is_home, markets

Row = dict[str, Any]
AS_OF = Spec().as_of


def _share(workers: list[Row], test: Callable[[Row], bool]) -> float:
    return sum(map(test, workers)) / len(workers)


def test_ids_numbers_and_addresses_are_unique(workers: list[Row]) -> None:
    assert len(workers) == 5_000
    for column in ("worker_id", "phone", "email"):
        assert len({worker[column] for worker in workers}) == 5_000


def test_every_fictional_number_is_valid_and_rings_nobody(workers: list[Row]) -> None:
    for state, areas in AREA_CODES.items():
        for area in areas.split():
            assert phonenumbers.is_valid_number(phonenumbers.parse(f"+1{area}5550100")), (state, area)
    for worker in workers:
        assert worker["phone"].startswith("+1")
        assert worker["phone"][5:10] == "55501"
    assert all(worker["email"].rpartition("@")[2].startswith("example.") for worker in workers)


def test_places_are_real_and_hold_together(workers: list[Row]) -> None:
    known = {(city.name, city.state) for city in markets(5_000)}
    elsewhere = [worker for worker in workers if (worker["city"], worker["state"]) not in known]
    assert [(worker["city"], worker["state"]) for worker in elsewhere] == [("Toledo", "OR")]
    assert all(len(worker["zip"]) == 5 and worker["zip"].isdigit() for worker in workers)
    home = [worker for worker in workers if (worker["city"], worker["state"]) == ("Toledo", "OH")]
    assert len(home) > 200
    assert all(worker["zip"].startswith("436") for worker in home)
    assert len({worker["state"] for worker in workers}) > 10


def test_a_larger_agency_is_in_more_cities() -> None:
    sizes = [len(markets(workers)) for workers in (50, 5_000, 500_000)]
    assert sizes[0] < sizes[1] < sizes[2]
    assert sizes[2] > 300
    for workers in (50, 5_000, 500_000):
        assert sum(city.share for city in markets(workers)) == pytest.approx(1)
        assert sum(map(is_home, markets(workers))) == 1
        assert {city.state for city in markets(workers)} <= set(AREA_CODES)


def test_most_orders_can_be_filled_and_some_cannot(world: World, workers: list[Row]) -> None:
    supply = Counter(
        (role, worker["city"], worker["state"])
        for worker in workers
        if worker["status"] == "active"
        for role in worker["roles"]
    )
    enough = sum(supply[order.role, order.city, order.state] >= order.count for order in world.orders)
    assert 0.5 < enough / len(world.orders) < 1


def test_names_have_marks_apostrophes_and_namesakes(workers: list[Row]) -> None:
    names = Counter((worker["first_name"], worker["last_name"]) for worker in workers)
    assert 0.03 < _share(workers, lambda w: not (w["first_name"] + w["last_name"]).isascii()) < 0.3
    assert sum("'" in worker["last_name"] for worker in workers) >= 10
    assert sum(count > 1 for count in names.values()) >= 10
    assert len(names) > 4_500
    assert all(worker["email"].isascii() for worker in workers)


def test_faults_come_in_realistic_shares(workers: list[Row]) -> None:
    assert 0.08 < _share(workers, lambda w: w["status"] == "inactive") < 0.15
    assert 0.01 < _share(workers, lambda w: w["status"] == "do_not_place") < 0.05
    assert 0.03 < _share(workers, lambda w: any(c["expires"] < AS_OF for c in w["certs"])) < 0.15
    assert 0.01 < _share(workers, lambda w: bool(w["blocked_clients"])) < 0.06
    assert 0.005 < _share(workers, lambda w: _age(w) < 18) < 0.03
    needing = [w for w in workers if role_named(w["roles"][0]).certs]
    held = [{c["code"] for c in w["certs"]} >= set(role_named(w["roles"][0]).certs) for w in needing]
    assert 0.85 < sum(held) / len(held) < 0.99
    assert 0.25 < _share(workers, lambda w: any(a["end"].date() > AS_OF for a in w["assignments"])) < 0.5


def _age(worker: Row) -> float:
    days: int = (AS_OF - worker["date_of_birth"]).days
    return days / 365.25


def test_rows_are_coherent(workers: list[Row]) -> None:
    names = {role.name for role in ROLES}
    for worker in workers:
        assert 1 <= len(worker["roles"]) == len(set(worker["roles"])) <= 3
        assert set(worker["roles"]) <= names
        assert {cert["code"] for cert in worker["certs"]} <= set(CERTS)
        assert len({cert["code"] for cert in worker["certs"]}) == len(worker["certs"])
        for job in worker["assignments"]:
            assert timedelta(hours=7) < job["end"] - job["start"] < timedelta(days=5)
        assert all(one["end"] <= two["start"] for one, two in pairwise(worker["assignments"]))


def test_night_shifts_and_the_end_of_summer_time_occur(workers: list[Row]) -> None:
    jobs = [job for worker in workers for job in worker["assignments"]]
    lengths = {job["end"] - job["start"] for job in jobs}
    # The night of the change is an hour longer than any other.
    assert {timedelta(hours=8.5), timedelta(hours=9.5)} <= lengths


def test_filled_orders_mean_the_same_time_for_everyone(workers: list[Row]) -> None:
    times: dict[str, tuple[object, object]] = {}
    for worker in workers:
        for job in worker["assignments"]:
            if job["order_id"] != "JO-19999999":
                assert times.setdefault(job["order_id"], (job["start"], job["end"])) == (
                    job["start"],
                    job["end"],
                )


def test_the_catalogue_has_forty_roles_that_refer_to_each_other() -> None:
    roles = role_catalogue()["roles"]
    names = [role["name"] for role in roles]
    spoken = [word.casefold() for role in roles for word in (role["name"], *role["aliases"])]
    assert len(names) == len(set(names)) >= 40
    assert len(spoken) - len(set(spoken)) == 0
    assert all(set(role["compatible"]) <= set(names) - {role["name"]} for role in roles)
    assert all(code in CERTS for role in ROLES for code in role.certs)


def _valid_for(demo: Scenario, worker: Row) -> bool:
    """The fill rules in plain words, from the contract rather than from the generator."""
    order = demo.order
    first_day = order.start.date()
    birth = worker["date_of_birth"]
    age = first_day.year - birth.year - ((first_day.month, first_day.day) < (birth.month, birth.day))
    held = {cert["code"]: cert["expires"] for cert in worker["certs"]}
    return (
        worker["status"] == "active"
        and order.role in worker["roles"]
        and (worker["city"], worker["state"]) == (order.city, order.state)
        and order.client_id not in worker["blocked_clients"]
        and all(held.get(code, date.min) >= order.end.date() for code in order.required_certs)
        and age >= (order.age_min or 0)
        and not any(
            job["start"] < order.end and order.start < job["end"] and job["order_id"] != order.order_id
            for job in worker["assignments"]
        )
    )


def _check_demo(world: World) -> None:
    by_id = {row["worker_id"]: row for batch in world.roster() for row in batch.to_pylist()}
    demo = world.demo
    assert len(demo.valid) >= 6
    assert all(_valid_for(demo, by_id[worker]) for worker in demo.valid)
    assert not any(_valid_for(demo, by_id[trap.worker_id]) for trap in demo.invalid)
    assert {trap.code for trap in demo.invalid} == {
        "fill.worker_inactive",
        "fill.location_mismatch",
        "fill.cert_expired",
        "fill.cert_missing",
        "fill.double_booked",
        "fill.client_blocked",
        "fill.role_mismatch",
        "fill.underage",
    }


def test_the_demo_order_asks_for_three_forklift_operators_in_toledo(world: World) -> None:
    order = world.orders[0]
    assert order == world.demo.order
    assert (order.count, order.role, order.city, order.state) == (3, "forklift operator", "Toledo", "OH")
    assert order.start.isoformat() == "2026-10-29T06:00:00-04:00"
    _check_demo(world)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**53 - 1),
    size=st.integers(50, 200),
    as_of=st.dates(date(1999, 1, 1), date(2199, 12, 1)),
)
def test_every_world_can_fill_its_demo_order(seed: int, size: int, as_of: date) -> None:
    _check_demo(generate(Spec(seed=seed, workers=size, orders=1, as_of=as_of, messages=0)))


@pytest.mark.parametrize("as_of", [date(2028, 2, 26), date(2027, 3, 11), date(2026, 12, 30)])
def test_leap_days_clock_changes_and_year_ends_break_nothing(as_of: date) -> None:
    _check_demo(generate(Spec(workers=60, orders=50, as_of=as_of)))


def test_a_batch_does_not_depend_on_the_ones_before_it() -> None:
    big = generate(Spec(workers=50_100, messages=0))
    *_, last = big.roster()
    *_, again = generate(Spec(workers=50_100, messages=0)).roster()
    assert last.equals(again)
    assert last.num_rows == 100
