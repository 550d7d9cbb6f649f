"""A Lance collection of a quarter, half and whole million of points: recall, time and memory of searches."""

import os
import statistics
from pathlib import Path

import pytest

from tests.bench.vectord.lance_steps import alone, build, search, truth

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

STEPS = [int(rows) for rows in os.environ.get("LANCE_ROWS", "250000,500000,1000000").split(",")]
QUERIES = 200
SETTINGS = ((20, 10), (20, 20), (40, 40), (40, 80))
USED = (40, 40)
RECALL_MIN = 0.95
MEMORY_MB_MAX = 2000


def test_recall_and_memory_as_rows_grow(tmp_path: Path) -> None:
    start = 0
    for rows in STEPS:
        built = alone(build, tmp_path / "shard", start, rows)
        start = rows
        print(
            f"\n{rows} x 128: written in {built.seconds_writing:.0f} s, "
            f"indexed in {built.seconds_indexing:.0f} s, "
            f"{built.memory_mb:.0f} MB meanwhile, {built.disk_mb:.0f} MB on disk"
        )
        expected = alone(truth, rows, QUERIES)
        for nprobes, refine in SETTINGS:
            found = alone(search, tmp_path / "shard", expected, nprobes, refine)
            centiles = statistics.quantiles(found.times_ms, n=100)
            print(
                f"  nprobes {nprobes}, refine {refine}: recall@10 {found.recall:.4f}, "
                f"p50 {centiles[49]:.1f} ms, p99 {centiles[98]:.1f} ms, {found.memory_mb:.0f} MB"
            )
            if (nprobes, refine) == USED:
                assert found.recall >= RECALL_MIN
                assert found.memory_mb <= MEMORY_MB_MAX
