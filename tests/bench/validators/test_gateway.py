"""The same checks through the gateway, with a key, metrics and logs on."""

from pathlib import Path

import pytest

from services.keys import KeyGrant, KeyStore
from tests.bench.load import Load, Outcome
from tests.bench.validators.agency import JSON, PATH, agency, proposals
from tests.bench.wrk import offered
from tests.processes import running

pytestmark = [pytest.mark.bench, pytest.mark.enable_socket, pytest.mark.timeout(300)]

ROUNDS = 3
RATE_MIN = 2000


def test_three_workers_through_the_gateway(tmp_path: Path, world: Path) -> None:
    key, _ = KeyStore(tmp_path / "data").create(KeyGrant(name="bench", scopes=("validate",)))
    with (
        agency(tmp_path, world / "roster.parquet") as ours,
        running("gateway", tmp_path, env={"GATEWAY_VALIDATORS_URLS": ours.daemon.url}) as gateway,
    ):
        headers = JSON | {"authorization": f"Bearer {key}"}
        bodies = proposals(ours.daemon, world)
        load = Load(f"{gateway.url}{PATH}", bodies, headers, seconds=5)
        outcome = Outcome.median([offered(load, tmp_path) for _ in range(ROUNDS)])
    print(f"\nfill of 3, through the gateway: {outcome}")
    assert outcome.rate >= RATE_MIN
