"""Storing vectors that are given, through the gateway: 384 numbers each."""

from pathlib import Path

import numpy as np
import orjson
import pytest

from tests.bench.vectord.glove import points
from tests.bench.vectord.house import house, show

pytestmark = [pytest.mark.bench, pytest.mark.enable_socket]

POINTS = 40_000
BATCH = 1000


def test_points_a_second(tmp_path: Path) -> None:
    rows = np.random.default_rng(1).normal(size=(POINTS, 384)).astype(np.float32)
    starts = range(0, POINTS, BATCH)
    encoded = [points(first, rows[first : first + BATCH]) for first in starts]
    lists = [
        orjson.dumps(
            {
                "points": [
                    {"id": first + n, "vector": row}
                    for n, row in enumerate(rows[first : first + BATCH].tolist())
                ]
            }
        )
        for first in starts
    ]
    rates = {}
    with house(tmp_path) as here:
        for name, batches, straight in (
            ("straight", encoded, True),
            ("gateway", encoded, False),
            ("lists", lists, True),
        ):
            here.call("PUT", name, {"dimension": 384, "hybrid": False})
            rates[name] = round(POINTS / here.write(name, batches, straight=straight))
            assert here.call("POST", f"{name}/points/count", {})["count"] == POINTS
            here.call("DELETE", name)
    show(points_per_s=rates)
    assert rates["straight"] >= 10_000
