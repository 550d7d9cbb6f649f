"""Looking at what there is: drift over all evidence, searches by attribute, key and word, a run's life.

`OBSERVED_RUNS` sets another size than 100,000.
"""

import os
import statistics
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.bench.distill.runs import Maker, write_log
from tests.bench.distill.test_pipeline import ENV, MemoryPeak, finished
from tests.processes import running

pytestmark = [pytest.mark.bench, pytest.mark.enable_socket, pytest.mark.timeout(1800)]

RUNS = int(os.environ.get("OBSERVED_RUNS", "100000"))
DRIFT_S_MAX = 10.0
PAGE_MS_MAX = 1000.0
REPEATS = 5
SEARCHES: dict[str, dict[str, Any]] = {
    "all": {},
    "category": {"category": "needs_human_review"},
    "role and code": {"role": "welder", "code": "fill.underage"},
    "a day": {"since": "2026-01-05T12:00:00Z", "until": "2026-01-05T13:00:00Z"},
    "an episode": {"episode_id": "ep-000000100"},
    "a run": {"run_id": "run-0000000100"},
    "a frequent word": {"q": "forklift"},
    "a rare word": {"q": "JO-0000100"},
    "a rare word of an hour": {"q": "JO-0000100", "until": "2026-01-05T07:00:00Z"},
}


def test_looking_at_evidence(tmp_path: Path) -> None:
    write_log(Maker(), tmp_path / "data" / "log", RUNS)
    with (
        running("distill", tmp_path, env=ENV) as distill,
        httpx.Client(base_url=distill.url, trust_env=False, timeout=60) as client,
    ):
        for stage in ("materialize", "score"):
            finished(client, {"stage": stage})
        print(f"\n{RUNS:,} runs")
        drift_s = _drift(client, distill.process.pid)
        pages = {name: _page_ms(client, name, asked) for name, asked in SEARCHES.items()}
        life = _milliseconds(client, "/v1/runs/run-0000000100", {"life": "true"})
        print(f"  a run's life: {life:.1f} ms")
    assert drift_s <= DRIFT_S_MAX
    assert max(pages.values()) <= PAGE_MS_MAX


def _drift(client: httpx.Client, process: int) -> float:
    peak = MemoryPeak(process)
    try:
        at = time.perf_counter()
        job = finished(client, {"stage": "drift"})
        seconds = time.perf_counter() - at
    finally:
        peak.close()
    print(f"  drift: {seconds:.2f} s, {peak.bytes / 1e6:.0f} MB, {len(job['drift']['outputs'])} outputs")
    return seconds


def _page_ms(client: httpx.Client, name: str, asked: dict[str, Any]) -> float:
    took = _milliseconds(client, "/v1/distill/evidence", {"limit": 20, **asked})
    page = client.get("/v1/distill/evidence", params={"limit": 20, **asked}).json()
    more = ", and more" if page["cursor"] else ""
    print(f"  {name}: {took:.1f} ms, {len(page['evidence'])} pieces{more}")
    return took


def _milliseconds(client: httpx.Client, path: str, params: dict[str, Any]) -> float:
    """The median time of a request."""
    taken = []
    for _ in range(REPEATS):
        at = time.perf_counter()
        client.get(path, params=params).raise_for_status()
        taken.append((time.perf_counter() - at) * 1000)
    return statistics.median(taken)
