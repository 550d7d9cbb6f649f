"""A disk on which each write takes a quarter of a second and more: whose turn has not come waits, or is told.

`make chaos` runs it and writes what it measured into docs/chaos.md. It needs root, a loop device and control
groups.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.outages import note, outage_table, replaced, under_traffic
from tests.chaos.report import ANSWER_S, ANSWERS, Table
from tests.chaos.slowdisk import slow_disk
from tests.chaos.town import data_of, town
from tests.chaos.traffic import DURABLE, NEEDS, Traffic, lost

pytestmark = [pytest.mark.chaos, pytest.mark.enable_socket, pytest.mark.timeout(300)]

SLOW_S = 8.0
BUSY = 429
WRITES = {"vectord": ("upsert", DURABLE), "distill": ("record",)}


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    with outage_table() as table:
        yield table


def slowest_spared_s(traffic: Traffic, writes: tuple[str, ...]) -> float:
    return max(each.seconds for each in traffic.outcomes if each.kind not in writes)


@pytest.mark.parametrize("name", WRITES)
def test_on_a_slow_disk_only_writes_take_their_time(tmp_path: Path, table: Table, name: str) -> None:
    writes = WRITES[name]
    with slow_disk(data_of(tmp_path, name), tmp_path / "disk") as disk, town(tmp_path) as one:
        one.prepare()
        place = one.places[name][0]

        def outage() -> None:
            disk.slow_down(place.process)
            time.sleep(SLOW_S)
            disk.speed_up()

        traffic, effect = under_traffic(
            one, outage, list(writes), kinds=[*NEEDS, DURABLE], answers={*ANSWERS, BUSY}
        )
        missing = lost(one, traffic.acknowledged)
        note(table, f"disk of {name} slow", traffic, effect, missing)
        effect.check()
        assert slowest_spared_s(traffic, writes) <= ANSWER_S, "reads do not wait for writes"
        assert max(each.seconds for each in traffic.of(writes)) > 1 / 4, "the disk was not slow"
        assert not missing
        replaced(place)
        assert not lost(one, traffic.acknowledged), "after a restart"
