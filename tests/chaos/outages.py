"""Troubles that come over a place, the traffic around them, and how they are noted in the table."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from tests.chaos.report import ANSWERS, Effect, Table
from tests.chaos.town import Place, Town
from tests.chaos.traffic import NEEDS, Traffic

BEFORE_S: Final = 2.0
DEAD_S: Final = 3.0
FROZEN_S: Final = 10.0
AFTER_S: Final = 6.0
"""Of traffic after an outage; failures later than that are seen by the next one."""

COLUMNS: Final = (
    "outage",
    "replicas",
    "requests",
    "failed elsewhere",
    "failed on its own routes",
    "slowest failure",
    "all well after",
    "acknowledged writes",
    "lost",
)


@contextmanager
def outage_table() -> Iterator[Table]:
    table = Table("outages", COLUMNS, keys=2)
    yield table
    table.publish()


def note(
    table: Table, name: str, traffic: Traffic, effect: Effect, missing: list[str], *, replicas: int = 1
) -> None:
    writes = sum(map(len, traffic.acknowledged.values()))
    table.add(name, str(replicas), *effect.cells(), f"{writes:,}", str(len(missing)))


# --- outages: each returns when it is over ------------------------------------------------------


def killed(place: Place) -> None:
    place.kill()
    time.sleep(DEAD_S)
    place.start()


def frozen(place: Place) -> None:
    place.freeze()
    time.sleep(FROZEN_S)
    place.thaw()


def replaced(place: Place) -> None:
    place.stop()
    place.start()


OUTAGES: Final = (killed, frozen, replaced)


def under_traffic(
    one: Town,
    outage: Callable[[], None],
    concerned: list[str],
    *,
    kinds: Iterable[str] = NEEDS,
    answers: Collection[int] = ANSWERS,
) -> tuple[Traffic, Effect]:
    """Let the traffic run before, during and after an outage."""
    with Traffic(one, kinds=kinds) as traffic:
        time.sleep(BEFORE_S)
        outage()
        over_s = traffic.now()
        time.sleep(AFTER_S)
    return traffic, Effect.of(traffic, concerned, over_s=over_s, answers=answers)
