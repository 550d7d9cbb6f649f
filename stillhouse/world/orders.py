"""Open job orders: who is wanted, where and when."""

from datetime import date, timedelta
from typing import Final

from schemas.artifacts import JobOrder
from stillhouse.world.catalogue import DEMO_ROLE, ROLES, SHIFTS, Role, role_named
from stillhouse.world.chance import stream
from stillhouse.world.places import City, home, markets
from stillhouse.world.records import Spec

CLIENTS: Final = tuple(f"C-{number:03d}" for number in range(1, 61))
FIRST_ORDER: Final = 100_001
DEMO_DAYS_AHEAD: Final = 3
_DAYS_AHEAD_MAX: Final = 21
_COUNTS: Final = (1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6, 8, 12)
_LENGTHS_DAYS: Final = (1, 1, 1, 1, 5)


def demo_order(as_of: date) -> JobOrder:
    """Three forklift operators for an early shift in the home city, three days from `as_of`."""
    day = as_of + timedelta(days=DEMO_DAYS_AHEAD)
    return _order(FIRST_ORDER, CLIENTS[6], (role_named(DEMO_ROLE), home()), (day, 0, 1), 3)


def job_orders(spec: Spec) -> tuple[JobOrder, ...]:
    """All open orders; the first is the demo's."""
    chance = stream(spec.seed, "orders")
    places = markets(spec.workers)
    shares = [city.share for city in places]
    weights = [role.weight for role in ROLES]
    made = [demo_order(spec.as_of)]
    for number in range(FIRST_ORDER + 1, FIRST_ORDER + spec.orders):
        role = chance.choices(ROLES, weights)[0]
        city = chance.choices(places, shares)[0]
        day = spec.as_of + timedelta(days=chance.randint(1, _DAYS_AHEAD_MAX))
        when = (day, chance.choice(role.shifts), chance.choice(_LENGTHS_DAYS))
        made.append(_order(number, chance.choice(CLIENTS), (role, city), when, chance.choice(_COUNTS)))
    return tuple(made)


def _order(
    number: int, client_id: str, job: tuple[Role, City], when: tuple[date, int, int], count: int
) -> JobOrder:
    (role, city), (day, shift, days) = job, when
    start, end = SHIFTS[shift].interval(day, days, city.zone)
    return JobOrder(
        order_id=f"JO-{number}",
        client_id=client_id,
        role=role.name,
        city=city.name,
        state=city.state,
        count=count,
        start=start,
        end=end,
        required_certs=list(role.certs),
        age_min=role.age_min,
    )
