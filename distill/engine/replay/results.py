"""What became of a task, as a record; and what shaped all of them, which must not change in between."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import orjson
from pydantic import JsonValue

from distill.engine.replay.store import Key, Line
from schemas.canonical import content_id
from schemas.iterate import IterateAttempt, IterateResponse
from schemas.iterate import Outcome as Iterated
from schemas.replay import Replay, ReplayAttempt, ReplayOutcome
from schemas.runs import ModelRef, Usage
from schemas.verdicts import Finding, Verdict
from services.errors import Conflict

Number = TypeVar("Number", int, float)

OUTCOMES: Final[Mapping[Iterated, ReplayOutcome]] = {
    "first_pass": "local_pass",
    "repaired": "local_repaired",
    "escalated": "escalated_pass",
    "failed": "failed",
}


class Mixed(Conflict):
    """Something that shapes answers or verdicts changed while the replay was under way."""

    code = "replay_mixed"


@dataclass(frozen=True, slots=True)
class Seen:
    """What an answer was made and judged under. `digests` are by provider and name of the model."""

    config: str | None
    policy: dict[str, str]
    roster: dict[str, str | None]
    digests: dict[str, str | None]

    @classmethod
    def of(cls, verdict: Verdict, config: str | None, digests: dict[str, str | None]) -> "Seen":
        by = verdict.validator
        policy = f"{by.name} {by.version}, policy {by.policy_version}"
        roster = verdict.roster.sha256 if verdict.roster else None
        return cls(config, {verdict.kind: policy}, {verdict.kind: roster}, digests)


@dataclass(frozen=True, slots=True)
class Result:
    """A task that was done. `prompt` is the hash of all that was asked."""

    record: Replay
    calls: int
    seen: Seen
    prompt: str

    def line(self) -> Line:
        return {
            "evidence_id": self.record.evidence_id,
            "repeat": self.record.repeat,
            "calls": self.calls,
            "prompt": self.prompt,
            "config": self.seen.config,
            "policy": self.seen.policy,
            "roster": self.seen.roster,
            "digests": self.seen.digests,
            "record": self.record.model_dump(mode="json"),
        }

    @classmethod
    def from_line(cls, line: Line) -> "Result":
        seen = Seen(line["config"], line["policy"], line["roster"], line["digests"])
        return cls(Replay.model_validate(line["record"]), line["calls"], seen, line["prompt"])


def key_of(line: Line) -> Key:
    return line["evidence_id"], line["repeat"]


@dataclass(slots=True)
class Fingerprint:
    """What all answers so far were made and judged under.

    In the recorded arm, whose answers come from different times, only the judging has to be one.
    """

    recorded: bool
    configs: set[str] = field(default_factory=set)
    policy: dict[str, str] = field(default_factory=dict)
    roster: dict[str, str | None] = field(default_factory=dict)
    digests: dict[str, str | None] = field(default_factory=dict)

    def add(self, seen: Seen) -> None:
        """Raises `Mixed` for an answer that does not go together with the ones before."""
        _join("the policy of validators", self.policy, seen.policy)
        _join("the roster", self.roster, seen.roster)
        _join("the model", self.digests, seen.digests)
        if seen.config is not None:
            self.configs.add(seen.config)
        if len(self.configs) > 1 and not self.recorded:
            raise _mixed("the configuration of chatd", sorted(self.configs))

    def told(self, models: Sequence[str], prompts: Sequence[str]) -> dict[str, str | None]:
        """The values as a manifest has them. `prompts` are the hashes of all questions in their order."""
        names = [*models, *sorted(self.digests.keys() - set(models))]
        configs = sorted(self.configs)
        return {
            "config": content_id(configs) if len(configs) > 1 else next(iter(configs), None),
            "prompt": content_id([*prompts]),
            "roster": _told(self.roster),
            "models": ", ".join(with_digest(name, self.digests.get(name)) for name in names) or None,
            "policy": _told(self.policy),
        }


def _join(what: str, known: dict[str, Any], seen: Mapping[str, Any]) -> None:
    for name, value in seen.items():
        if known.setdefault(name, value) != value:
            raise _mixed(f"{what} ({name})", [known[name], value])


def _mixed(what: str, values: Sequence[str | None]) -> Mixed:
    return Mixed(
        f"{what} changed while the replay was under way, from {values[0]} to {values[-1]}; its tasks cannot"
        " be compared with one another: begin anew with `fresh`"
    )


def _told(by_kind: Mapping[str, str | None]) -> str | None:
    """One value for all kinds, or each by its kind."""
    values = set(by_kind.values())
    if len(values) <= 1:
        return next(iter(values), None)
    return "; ".join(f"{kind}: {value}" for kind, value in sorted(by_kind.items()))


def with_digest(name: str, digest: str | None) -> str:
    return name if digest is None else f"{name}@{digest}"


# --- from answers to records ------------------------------------------------------------------


def attempts_of(answer: IterateResponse) -> list[ReplayAttempt]:
    return [
        ReplayAttempt(
            run_id=one.run_id,
            model=served_by(one),
            verdict=one.verdict,
            codes=codes_of(one.findings),
            usage=one.usage,
            latency_ms=one.latency_ms,
        )
        for one in answer.attempts
    ]


def served_by(attempt: IterateAttempt) -> ModelRef:
    return attempt.served_by or ModelRef(provider="unknown", name=attempt.model)


def codes_of(findings: Sequence[Finding]) -> list[str]:
    """Each code once, in the order of the findings."""
    return list(dict.fromkeys(finding.code for finding in findings))


def last_answer(answer: IterateResponse) -> tuple[str | None, list[Finding]]:
    """The text of the last attempt that came to an answer, and what was found in it."""
    for one in reversed(answer.attempts):
        if one.verdict is not None:
            return text_of(one.artifact), one.findings
    return None, []


def text_of(artifact: JsonValue) -> str:
    return artifact if isinstance(artifact, str) else orjson.dumps(artifact).decode()


def total(usages: Sequence[Usage]) -> Usage:
    """What several calls used; unknown where it is unknown of one."""
    return Usage(
        prompt_tokens=_sum([one.prompt_tokens for one in usages]),
        completion_tokens=_sum([one.completion_tokens for one in usages]),
        cost_usd=_sum([one.cost_usd for one in usages]),
    )


def _sum(values: Sequence[Number | None]) -> Number | None:
    known = [value for value in values if value is not None]
    return sum(known[1:], known[0]) if known and len(known) == len(values) else None
