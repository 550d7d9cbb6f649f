"""Runs of two weeks, made to differ in what a story is about and in nothing else."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.unit.distill.builders import Json, run, verdict

FIRST_WEEK = datetime(2026, 11, 2, tzinfo=UTC)
SECOND_WEEK = FIRST_WEEK + timedelta(days=7)


def week(
    start: datetime,
    *,
    count: int = 40,
    rejected: int = 4,
    code: str = "fill.underage",
    tasks: bool = False,
    **fields: Any,
) -> Iterator[Json]:
    """Judged runs an hour apart, the first `rejected` of them refused for `code`.

    With `tasks`, each is about an order that is the same in every week.
    """
    for number in range(count):
        found = verdict("rejected", code) if number < rejected else verdict()
        found["roster"] = {"sha256": "r" * 64, "as_of": "2026-11-01", "rows": 3}
        yield run(
            f"{start:%d}-{number}",
            answer="x" * (100 + number),
            **{
                "ts": (start + timedelta(hours=number)).isoformat().replace("+00:00", "Z"),
                "task": {"kind": "fill", "key": f"JO-{number}"} if tasks else None,
                "verdict": found,
                "latency_ms": 400 + number,
                "usage": {"prompt_tokens": 10, "completion_tokens": 5, "cost_usd": 0.001},
                "config_hash": "c0ffee",
                **fields,
            },
        )
