"""A log of a million runs becomes evidence, categories and a dataset: how fast, and in how much memory.

`PIPELINE_RUNS` sets another size. A quarter of it is done first, to see that memory does not grow with it.
"""

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.bench.distill.runs import Maker, write_log
from tests.processes import Running, running
from tests.unit.distill.vouched import seal

pytestmark = [pytest.mark.bench, pytest.mark.enable_socket, pytest.mark.timeout(3600)]

RUNS = int(os.environ.get("PIPELINE_RUNS", "1000000"))
ENV = {"DISTILL_DISK_FREE_BYTES_MIN": "0", "DISTILL_LOG_LEVEL": "warning", "DISTILL_PROCESSES": "2"}
STAGES: tuple[dict[str, Any], ...] = (
    {"stage": "materialize"},
    {"stage": "score"},
    {"stage": "export", "kind": "sft", "target": "openai"},
)
RATE_MIN = 5000
MEGABYTES_MAX = 600
LOOK_S = 0.2


class MemoryPeak:
    """The most memory that a process and those that it starts have had together, in bytes."""

    def __init__(self, process: int) -> None:
        self.bytes = 0
        self._process = psutil.Process(process)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            found = 0
            for one in (self._process, *self._process.children(recursive=True)):
                try:
                    found += one.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.bytes = max(self.bytes, found)


@dataclass(frozen=True)
class Run:
    """Seconds of each stage, and the most memory."""

    stages: dict[str, float]
    megabytes: float

    @property
    def seconds(self) -> float:
        return sum(self.stages.values())

    @property
    def evidence_seconds(self) -> float:
        """The stages that go on where they were. An export is a new dataset each time."""
        return self.seconds - self.stages["export"]


def pipeline(distill: Running) -> Run:
    """All stages, one after the other."""
    peak = MemoryPeak(distill.process.pid)
    try:
        stages: dict[str, float] = {}
        with httpx.Client(base_url=distill.url, trust_env=False, timeout=60) as client:
            for stage in STAGES:
                at = time.perf_counter()
                job = finished(client, stage)
                stages[stage["stage"]] = time.perf_counter() - at
                print(f"  {stage['stage']}: {stages[stage['stage']]:.1f} s, {job['counts']}")
        return Run(stages, peak.bytes / 1e6)
    finally:
        peak.close()


def finished(client: httpx.Client, stage: dict[str, Any]) -> dict[str, Any]:
    job_id = client.post("/v1/distill/jobs", json=stage).raise_for_status().json()["job_id"]
    while True:
        job: dict[str, Any] = client.get(f"/v1/distill/jobs/{job_id}").raise_for_status().json()
        if job["state"] in ("done", "failed"):
            assert job["state"] == "done", job["error"]
            return job
        time.sleep(0.05)


def test_a_million_runs(tmp_path: Path) -> None:
    maker, made = Maker(), {}
    log, last = tmp_path / "data" / "log", 0
    for runs, name in ((RUNS // 4, "a quarter"), (RUNS - RUNS // 4, "all")):
        last = write_log(maker, log, runs, first=last + 1)
        seal(log / f"runs-{last:06d}.jsonl")  # another follows
        for old in ("distill", "datasets"):  # from nothing each time
            if (tmp_path / "data" / old).exists():
                (tmp_path / "data" / old).rename(tmp_path / f"{old}-{name}")
        with running("distill", tmp_path, env=ENV) as distill:
            print(f"\n{name}:")
            made[name] = pipeline(distill)
    whole = made["all"]
    last = write_log(maker, log, RUNS // 100, first=last + 1)
    with running("distill", tmp_path, env=ENV) as distill:
        print("a hundredth more:")
        more = pipeline(distill)
    rate = RUNS / whole.seconds
    print(
        f"{RUNS:,} runs: {whole.seconds:.0f} s, {rate:,.0f}/s, {whole.megabytes:.0f} MB"
        f" (a quarter: {made['a quarter'].megabytes:.0f} MB); 1 % more: {more.evidence_seconds:.1f} s"
        f" to categories, {more.seconds:.1f} s with a new export"
    )
    assert rate >= RATE_MIN
    assert whole.megabytes <= MEGABYTES_MAX
    assert whole.megabytes <= made["a quarter"].megabytes * 1.2
    assert more.evidence_seconds <= 3 + whole.evidence_seconds / 100
