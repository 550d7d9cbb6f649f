"""Every daemon restarted, one process after the other, under load: nobody notices.

`RESTART_WAIT_S` is how long the gateways wait for the daemons of which there is one: no shorter than the
machine takes to start them.
"""

import os
import time
from pathlib import Path

import pytest

from tests.chaos.town import town
from tests.chaos.traffic import NEEDS, RATE, Traffic, lost, told

pytestmark = [pytest.mark.bench, pytest.mark.enable_socket, pytest.mark.timeout(300)]

REPLICAS = {"embedd": 2, "chatd": 2, "validators": 2, "gateway": 2}
"""vectord and distill own files, so there is one of each."""
PAUSE_S = 1.0
SETTINGS = {"GATEWAY_RESTART_WAIT_S": os.environ.get("RESTART_WAIT_S", "3")}


def test_a_rolling_restart_fails_nobody(tmp_path: Path) -> None:
    with town(tmp_path, replicas=REPLICAS, env=SETTINGS) as one:
        one.prepare()
        away_s: dict[str, float] = {}
        with Traffic(one) as traffic:
            time.sleep(PAUSE_S)
            for name, places in one.places.items():
                for place in places:
                    started = time.monotonic()
                    place.stop()
                    place.start()
                    away_s[name] = max(away_s.get(name, 0.0), time.monotonic() - started)
                    time.sleep(PAUSE_S)
        failed = [each for each in traffic.outcomes if not each.ok]
        slowest = {kind: max(each.seconds for each in traffic.of([kind])) for kind in NEEDS}
        print(
            f"\n{len(traffic.outcomes):,} requests at {RATE:g}/s through {len(away_s)} restarts:"
            f" {len(failed)} failed;",
            "away for",
            ", ".join(f"{name} {seconds:.1f} s" for name, seconds in away_s.items()),
            "; slowest",
            ", ".join(f"{kind} {seconds:.2f} s" for kind, seconds in slowest.items()),
        )
        assert not failed, told(failed)
        assert not lost(one, traffic.acknowledged)
