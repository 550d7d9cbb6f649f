"""Evidence as JSON: a turn, and what was said of it. Pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from distill.engine.identity import input_of, role_of
from distill.engine.sources import Turn
from schemas.evidence import Evidence

Json = dict[str, Any]

NO_USAGE: Final[Json] = {"prompt_tokens": None, "completion_tokens": None, "cost_usd": None}


@dataclass(frozen=True, slots=True)
class Said:
    """What is known of a turn beyond its own line."""

    verdict: Json | None = None
    feedback: Sequence[Json] = ()
    review: Sequence[Json] = ()
    repair_of: str | None = None
    repaired_by: str | None = None
    duplicates: int = 0


NOTHING_SAID: Final = Said()


def evidence_of(turn: Turn, evidence_id: str, source: Mapping[str, Any], said: Said = NOTHING_SAID) -> Json:
    """`stillhouse.evidence`, its fields in the order of the schema."""
    return {
        "schema": Evidence.schema_id,
        "schema_version": Evidence.version,
        "ext": {},
        "evidence_id": evidence_id,
        "source": source,
        "ts": turn.ts,
        "episode_id": turn.episode_id,
        "task": turn.task,
        "role": role_of(turn),
        "input": input_of(turn),
        "output": turn.output,
        "model": turn.model,
        "usage": turn.usage or NO_USAGE,
        "latency_ms": turn.latency_ms,
        "config_hash": turn.config_hash,
        "verdict": said.verdict or turn.verdict,
        "feedback": said.feedback,
        "review": said.review,
        "repair_of": said.repair_of,
        "repaired_by": said.repaired_by,
        "duplicates": said.duplicates,
    }


def feedback_of(record: Mapping[str, Any], scope: str) -> Json:
    """`stillhouse.feedback` as evidence has it."""
    names = ("feedback_id", "ts", "kind", "name", "value", "by")
    return {"scope": scope, **{name: record.get(name) for name in names}}


def review_of(record: Mapping[str, Any]) -> Json:
    """`stillhouse.review` as evidence has it."""
    return {name: record.get(name) for name in ("review_id", "ts", "decision", "by", "note", "correction")}
