"""Checks of three workers against half a million, straight to one process."""

from pathlib import Path

import pytest

from tests.bench.load import Outcome
from tests.bench.validators.agency import agency, proposals
from tests.bench.wrk import offered

pytestmark = [pytest.mark.bench, pytest.mark.enable_socket, pytest.mark.timeout(300)]

ROUNDS = 3
RATE_MIN = 3000
P99_MS_MAX = 25


def test_three_workers_against_half_a_million(tmp_path: Path, world: Path) -> None:
    with agency(tmp_path, world / "roster.parquet") as ours:
        load = ours.load(proposals(ours.daemon, world))
        outcome = Outcome.median([offered(load, tmp_path) for _ in range(ROUNDS)])
        alone = offered(ours.load(load.bodies, connections=1, seconds=2), tmp_path)
    print(f"\nfill of 3, straight: {outcome}; 1 connection {alone}")
    assert outcome.rate >= RATE_MIN
    assert outcome.p99_ms <= P99_MS_MAX
