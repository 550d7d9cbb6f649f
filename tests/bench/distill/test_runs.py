"""How many records a second `distill` takes, each of them on the disk when it is acknowledged."""

from pathlib import Path

import pytest

from tests.bench.distill.runs import Maker, as_text
from tests.bench.load import NUMBER, Load, Outcome, generate
from tests.processes import running

pytestmark = [pytest.mark.bench, pytest.mark.enable_socket]

ENV = {"DISTILL_DISK_FREE_BYTES_MIN": "0", "DISTILL_LOG_LEVEL": "warning"}
ROUNDS = 3
WRITERS = 32
LINES = 500


def bodies(count: int, lines: int) -> list[str]:
    """Bodies of some lines each; every request gets ids of its own."""
    records = [record for record in Maker().records(count * lines) if record["schema"] == "stillhouse.run"]
    texts = [as_text(record, f"{NUMBER}-{place}") for place, record in enumerate(records)]
    return ["".join(texts[start : start + lines]) for start in range(0, len(texts), lines)]


def test_records_one_by_one(tmp_path: Path) -> None:
    with running("distill", tmp_path, env=ENV) as distill:
        url = f"{distill.url}/v1/runs"
        rounds = []
        for number in range(ROUNDS):
            texts = [text.replace("run-", f"round{number}-") for text in bodies(200, 1)]
            rounds.append(generate(Load(url, texts, connections=WRITERS, seconds=4.0), tmp_path))
        taken = Outcome.median(rounds)
        print(f"\nPOST /v1/runs, one record each, {WRITERS} writers: {taken}")
    assert taken.rate >= 3000


def test_records_as_ndjson(tmp_path: Path) -> None:
    with running("distill", tmp_path, env=ENV) as distill:
        headers = {"content-type": "application/x-ndjson"}
        rounds = []
        for number in range(ROUNDS):
            texts = [text.replace("run-", f"round{number}-") for text in bodies(20, LINES)]
            load = Load(f"{distill.url}/v1/runs", texts, headers, connections=4, seconds=6.0)
            rounds.append(generate(load, tmp_path))
        taken = Outcome.median(rounds)
        print(f"\nPOST /v1/runs, {LINES} lines each, 4 writers: {taken.rate * LINES:,.0f} records/s")
    assert taken.rate * LINES >= 20_000
