"""A network between the gateway and two daemons that gets slow, lossy, cut or unplugged; names that move.

`make chaos` runs it and writes what it measured into docs/chaos.md. It needs root, `ip` and /dev/net/tun.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from services.keys import KeyGrant, KeyStore
from services.testing import free_port
from tests.chaos.netns import FAR, FAR_TOO, NEAR, Network, network
from tests.chaos.report import Effect, Table, kinds_of
from tests.chaos.town import DAEMONS, LOOPBACK, Place, Town, town
from tests.chaos.traffic import Traffic, lost, told
from tests.chaos.wire import Quality

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.enable_socket,
    pytest.mark.allow_hosts([LOOPBACK, NEAR, FAR, FAR_TOO]),
    pytest.mark.timeout(300),
]

TOKEN = {"STILLHOUSE_INTERNAL_TOKEN": "shared-by-all-of-this-town"}
AWAY = ("vectord", "validators")
CONCERNED = kinds_of(*AWAY)
BEFORE_S = 2.0
BAD_S = 8.0
AFTER_S = 6.0
SLOW = Quality(delay_s=0.1)
LOSSY = Quality(loss=0.05)
CUT = Quality(loss=1.0)
LOSSY_FAILURES_MAX = 0.02
"""Share of requests: a lost packet of a new connection is sent again only after a second."""

COLUMNS = (
    "network",
    "requests",
    "failed elsewhere",
    "failed over it",
    "slowest failure",
    "all well after",
    "p99 of what was answered over it",
    "acknowledged writes",
    "lost",
)


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    table = Table("network", COLUMNS)
    yield table
    table.publish()


@pytest.fixture(scope="module")
def far() -> Iterator[Network]:
    with network() as one:
        yield one


@pytest.fixture(scope="module")
def parted(far: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """vectord and validators are behind the wire, everybody else is here."""
    with town(tmp_path_factory.mktemp("parted"), env=TOKEN, away=dict.fromkeys(AWAY, far)) as one:
        one.prepare()
        yield one


def under_traffic(one: Town, table: Table, name: str, trouble: Callable[[], None]) -> tuple[Traffic, Effect]:
    """Let the traffic run before, during and after; nothing acknowledged may be lost."""
    with Traffic(one) as traffic:
        time.sleep(BEFORE_S)
        trouble()
        over_s = traffic.now()
        time.sleep(AFTER_S)
    effect = Effect.of(traffic, CONCERNED, over_s=over_s)
    missing = lost(one, traffic.acknowledged)
    times_s = [each.seconds for each in traffic.of(CONCERNED) if each.ok]
    p99_s = statistics.quantiles(times_s, n=100)[98]
    writes = sum(map(len, traffic.acknowledged.values()))
    table.add(name, *effect.cells(), f"{p99_s:.2f} s", f"{writes:,}", str(len(missing)))
    assert not missing
    return traffic, effect


def for_a_while(far: Network, quality: Quality) -> None:
    far.set_quality(quality)
    time.sleep(BAD_S)
    far.set_quality(Quality())


def test_a_slow_network_only_takes_its_time(parted: Town, far: Network, table: Table) -> None:
    _, effect = under_traffic(parted, table, "200 ms slower", lambda: for_a_while(far, SLOW))
    effect.check()
    assert not effect.failed, told(effect.failed)


def test_a_lossy_network_fails_few(parted: Town, far: Network, table: Table) -> None:
    traffic, effect = under_traffic(parted, table, "5 % of packets lost", lambda: for_a_while(far, LOSSY))
    effect.check()
    assert len(effect.failed) <= LOSSY_FAILURES_MAX * len(traffic.of(CONCERNED)), told(effect.failed)


def test_a_cut_wire_is_told_soon(parted: Town, far: Network, table: Table) -> None:
    _, effect = under_traffic(parted, table, "cut: packets vanish", lambda: for_a_while(far, CUT))
    effect.check()
    assert effect.failed, "nothing came through"


def test_an_unplugged_device_is_told_soon(parted: Town, far: Network, table: Table) -> None:
    def trouble() -> None:
        far.unplug()
        time.sleep(BAD_S)
        far.plug()

    _, effect = under_traffic(parted, table, "unplugged: no route", trouble)
    effect.check()
    assert effect.failed, "nothing came through"


def test_half_open_connections_are_given_up(parted: Town, far: Network, table: Table) -> None:
    """The daemons are started anew while the wire is cut: the gateway is not told that connections died."""

    def trouble() -> None:
        far.set_quality(CUT)
        for name in AWAY:
            parted.places[name][0].kill()
            parted.places[name][0].launch()
        time.sleep(BAD_S)
        far.set_quality(Quality())
        for name in AWAY:
            parted.places[name][0].alive.wait_until_healthy()

    _, effect = under_traffic(parted, table, "cut, daemons restarted meanwhile", trouble)
    effect.check()


def test_a_name_that_moves_is_followed(far: Network, table: Table, tmp_path: Path) -> None:
    """One replica leaves, as its address leaves the name; then the name moves to the other altogether."""
    key, _ = KeyStore(tmp_path / "keys").create(KeyGrant(name="moving"))
    port, name = free_port(), "validators.town"
    nobody = {f"GATEWAY_{other.upper()}_URLS": f"http://{LOOPBACK}:{free_port()}" for other in DAEMONS}
    with far.names({name: [FAR]}) as names, ExitStack() as stack:
        gateway = Place(
            "gateway",
            tmp_path / "gateway",
            stack,
            {
                **TOKEN,
                **nobody,
                "GATEWAY_HOST": FAR,
                "GATEWAY_VALIDATORS_URLS": f"http://{name}:{port}",
                "GATEWAY_DNS_INTERVAL_S": "0.5",
                "STILLHOUSE_DATA": str(tmp_path / "keys"),
            },
            far.program("gateway"),
            FAR,
        )
        first, second = (
            Place(
                "validators",
                tmp_path / host,
                stack,
                {**TOKEN, "VALIDATORS_HOST": host},
                far.program("validators"),
                host,
                port,
            )
            for host in (FAR, FAR_TOO)
        )
        for each in (first, second, gateway):
            each.start()
        one = Town(key, [], {"gateway": [gateway], "validators": [first, second]})
        with Traffic(one, kinds=["validate"], rate=50.0) as traffic:
            time.sleep(BEFORE_S)
            names.set({name: [FAR, FAR_TOO]})
            time.sleep(BEFORE_S)
            names.set({name: [FAR_TOO]})
            time.sleep(BEFORE_S)
            first.stop()
            time.sleep(BEFORE_S)
    effect = Effect.of(traffic, ["validate"], over_s=traffic.now())
    table.add("a name with other addresses", *effect.cells(), "–", "0", "0")
    assert not effect.failed, told(effect.failed)
