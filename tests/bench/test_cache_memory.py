"""What a full cache costs a process, against what it may cost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.bench

BUDGET_BYTES = 256 * 1024 * 1024
DIMENSIONS = 768
RATIO_MAX = 1.15

PROGRAM = """
import gc, json, os, sys
import numpy as np, psutil
from embedd.engine.cache import ENTRY_OVERHEAD_BYTES, Entry, VectorCache, cache_key, key_base

budget, dimensions, policy, rounds = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
cache = VectorCache(bytes_max=budget, policy=policy, ttl_s=0)
base = key_base("ollama", "sha256:0", b"{}")
fitting = budget // (dimensions * 4 + 8 + ENTRY_OVERHEAD_BYTES)
row = np.random.default_rng(1).standard_normal((64, dimensions)).astype("<f4")
key = cache_key(base, "", "warm up"); cache.put(key, Entry(row[0].tobytes(), 1)); cache.get(key)
gc.collect()
before = psutil.Process().memory_info().rss
for number in range(fitting * rounds):
    cache.put(cache_key(base, "", f"text {number}"), Entry(row[number % 64].tobytes(), 5))
    if number % 3 == 0:
        cache.get(cache_key(base, "", f"text {number // 2}"))
gc.collect()
after = psutil.Process().memory_info().rss
print(json.dumps({"entries": len(cache), "charged": cache.bytes, "rss": after - before}))
"""


@pytest.mark.parametrize("policy", ["lru", "lfu"])
@pytest.mark.parametrize("dimensions", [384, DIMENSIONS])
@pytest.mark.parametrize("rounds", [1, 4], ids=["full", "turned-over"])
def test_a_full_cache_stays_near_its_budget(policy: str, dimensions: int, rounds: int) -> None:
    root = Path(__file__).parent.parent.parent
    out = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(BUDGET_BYTES), str(dimensions), policy, str(rounds)],
        capture_output=True,
        check=True,
        cwd=root,
        timeout=100,
    ).stdout
    found = json.loads(out)
    ratio = found["rss"] / BUDGET_BYTES
    print(
        f"\n{policy}, {dimensions}-d, {rounds} rounds: {found['entries']} entries, charged"
        f" {found['charged'] / 2**20:.0f} MiB, resident {found['rss'] / 2**20:.1f} MiB, ratio {ratio:.3f}"
    )
    assert found["charged"] <= BUDGET_BYTES
    assert 1 / RATIO_MAX <= ratio <= RATIO_MAX
