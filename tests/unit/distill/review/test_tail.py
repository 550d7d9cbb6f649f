"""Decisions that came after the evidence was made: each is read once, wherever the log is cut."""

from pathlib import Path

import orjson
import pytest

from distill.engine.log import SegmentView
from distill.engine.review import tail
from distill.engine.review.tail import Tail


def line(number: int) -> bytes:
    record = {
        "by": "ann",
        "decision": "accept",
        "evidence_id": f"{number:064x}",
        "review_id": f"r{number}",
        "schema": "stillhouse.review",
        "ts": "2026-11-02T10:00:00Z",
    }
    return orjson.dumps(record) + b"\n"


TALKS_OF_IT = orjson.dumps({"note": '"schema":"stillhouse.review"', "schema": "stillhouse.run"}) + b"\n"
HAS_IT_INSIDE = b'{"ext":{"schema":"stillhouse.review"},"schema":"stillhouse.run"}\n'


@pytest.mark.parametrize("block", [1, 50, 1 << 20])
@pytest.mark.parametrize("step", [1, 97, 10_000])
def test_however_the_log_grows_each_decision_is_taken_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, step: int
) -> None:
    monkeypatch.setattr(tail, "BLOCK_BYTES", block)
    content = TALKS_OF_IT + line(1) + HAS_IT_INSIDE + line(2) + line(1) + TALKS_OF_IT
    path = tmp_path / "runs-000001.jsonl"
    path.write_bytes(content)
    found = Tail({})
    for end in [*range(0, len(content), step), len(content)]:
        found.follow([SegmentView(path.name, path, end)])
    assert {int(name, 16): len(decided) for name, decided in found.decided.items()} == {1: 2, 2: 1}


def test_what_the_evidence_has_already_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "runs-000001.jsonl"
    path.write_bytes(line(1) + line(2))
    found = Tail({path.name: len(line(1))})
    found.follow([SegmentView(path.name, path, 2 * len(line(1)))])
    assert [int(name, 16) for name in found.decided] == [2]
