"""One daemon killed and another frozen under a little of everything: the short form of `test_outages.py`.

It waits for what shall happen instead of for a time, so that it holds on a slow machine as well.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.report import Effect, kinds_of
from tests.chaos.town import Place, town
from tests.chaos.traffic import Traffic, lost, told

pytestmark = pytest.mark.enable_socket

RATE: Final = 40.0
PATIENCE_S: Final = 30.0
SETTINGS: Final = {
    "GATEWAY_CRASH_WAIT_S": "0.3",
    "GATEWAY_WATCH_TIMEOUT_S": "2",  # more than a daemon on a busy machine takes for its health
    "GATEWAY_UPSTREAM_CONNECT_TIMEOUT_S": "10",
    "GATEWAY_HOP_ANSWER_TIMEOUT_S": "10",
}


def wait_for(traffic: Traffic, daemon: str, *, ok: bool) -> None:
    """Until a request that needs the daemon, and is sent from now on, has gone well, or has not."""
    since_s = traffic.now()
    deadline = time.monotonic() + PATIENCE_S
    while not any(each.ok is ok for each in traffic.of(kinds_of(daemon)) if each.at_s >= since_s):
        assert time.monotonic() < deadline, f"{daemon}: {told(traffic.of(kinds_of(daemon)))}"
        time.sleep(0.05)


def under_traffic(traffic: Traffic, place: Place, begin: Callable[[], None], end: Callable[[], None]) -> None:
    """An outage, from when all is well until it is again."""
    wait_for(traffic, place.module, ok=True)
    begin()
    wait_for(traffic, place.module, ok=False)
    end()
    wait_for(traffic, place.module, ok=True)


def test_a_killed_and_a_frozen_daemon_fail_alone_and_lose_nothing(tmp_path: Path) -> None:
    with town(tmp_path, env=SETTINGS) as one:
        one.prepare()
        vectord, distill = one.places["vectord"][0], one.places["distill"][0]
        with Traffic(one, rate=RATE) as traffic:
            under_traffic(traffic, vectord, vectord.kill, vectord.start)
            under_traffic(traffic, distill, distill.freeze, distill.thaw)
            over_s = traffic.now()
        effect = Effect.of(traffic, kinds_of("vectord", "distill"), over_s=over_s)
        effect.check()
        assert traffic.acknowledged["upsert"]
        assert traffic.acknowledged["record"]
        assert not lost(one, traffic.acknowledged)
