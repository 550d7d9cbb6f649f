"""A disk on which each write takes a quarter of a second and more: whose turn has not come waits, or is told.

`make chaos` runs it and writes what it measured into docs/chaos.md. It needs root, a loop device and control
groups.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.chaos.outages import note, outage_table, replaced, under_traffic
from tests.chaos.report import ANSWER_S, ANSWERS, Table
from tests.chaos.slowdisk import slow_disk
from tests.chaos.town import COLLECTION, data_of, town
from tests.chaos.traffic import DURABLE, NEEDS, lost
from tests.unit.distill.builders import run

pytestmark = [pytest.mark.chaos, pytest.mark.enable_socket, pytest.mark.timeout(300)]

SLOW_S = 8.0
READ_INTERVAL_S = 0.05
BUSY = 429
WRITES = {"vectord": ("upsert", DURABLE), "distill": ("record",)}
KNOWN = "known-before"
READ = {"vectord": f"/v1/collections/{COLLECTION}", "distill": f"/v1/runs/{KNOWN}"}


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    with outage_table() as table:
        yield table


def slowest_read_s(client: httpx.Client, path: str) -> float:
    """Of reads one after the other, for as long as the disk is slow."""
    slowest, end = 0.0, time.monotonic() + SLOW_S
    while (started := time.monotonic()) < end:
        assert client.get(path).status_code == 200
        slowest = max(slowest, time.monotonic() - started)
        time.sleep(READ_INTERVAL_S)
    return slowest


@pytest.mark.parametrize("name", WRITES)
def test_on_a_slow_disk_only_writes_take_their_time(tmp_path: Path, table: Table, name: str) -> None:
    writes = WRITES[name]
    reads_s: list[float] = []
    with slow_disk(data_of(tmp_path, name), tmp_path / "disk") as disk, town(tmp_path) as one:
        one.prepare()
        place = one.places[name][0]
        with one.client() as client:
            assert client.post("/v1/runs", json=run(KNOWN)).status_code == 200

            def outage() -> None:
                disk.slow_down(place.process)
                reads_s.append(slowest_read_s(client, READ[name]))
                disk.speed_up()

            traffic, effect = under_traffic(
                one, outage, list(writes), kinds=[*NEEDS, DURABLE], answers={*ANSWERS, BUSY}
            )
        missing = lost(one, traffic.acknowledged)
        note(table, f"disk of {name} slow", traffic, effect, missing)
        effect.check()
        assert reads_s[0] <= ANSWER_S, "reads do not wait for writes"
        assert max(each.seconds for each in traffic.of(writes)) > 1 / 4, "the disk was not slow"
        assert not missing
        replaced(place)
        assert not lost(one, traffic.acknowledged), "after a restart"
