"""What one configuration made of the recorded tasks: the folder of a replay, read for a comparison.

A folder has `tasks.jsonl`, one `stillhouse.replay` a task and repeat, and `manifest.json`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from distill.engine.places import MANIFEST, TASKS
from schemas.comparison import Counting
from schemas.replay import Replay, ReplayManifest, ReplayOutcome
from schemas.verdicts import Finding
from services.errors import Conflict

TEXT_MAX: Final = 6000
"""Characters of an answer that are kept, and shown beside the other one."""
FINDINGS_MAX: Final = 50
OWN: Final[frozenset[ReplayOutcome]] = frozenset({"local_pass", "local_repaired"})
"""The arm's first model came to an accepted answer by itself, at once or after repairs."""

FINGERPRINTS: Final = ("config", "prompt", "roster", "models", "policy")
"""What shapes the answers of an arm and the verdicts on them."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One task under one arm. `outcomes` has one a repeat; `group` and `work` are as in `stillhouse.replay`.

    `text` and `findings` are the beginnings of those of the last answer, `text_length` and `findings_count`
    how much there is; `codes` are all of its codes. `cost_usd` and `latency_ms` are means over the repeats;
    None where any of them is unknown.
    """

    task_id: str
    group: str
    work: str
    kind: str | None
    role: str | None
    outcomes: tuple[ReplayOutcome, ...]
    cost_usd: float | None
    latency_ms: float | None
    text: str = ""
    text_length: int = 0
    codes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    findings_count: int = 0

    @property
    def passes(self) -> tuple[bool, ...]:
        """Whether the first model passed by itself, one a repeat."""
        return tuple(outcome in OWN for outcome in self.outcomes)

    def share(self, counting: Counting) -> Fraction:
        """The share of repeats that passed, from 0 to 1."""
        passed = self.passes if counting == "own" else [outcome != "failed" for outcome in self.outcomes]
        return Fraction(sum(passed), len(self.outcomes))


@dataclass(frozen=True, slots=True)
class ArmResults:
    """All tasks of one arm, by their ids in order. `fingerprint` has each of `FINGERPRINTS`, or None.

    `left_out` counts by reason the tasks that have no result; `sha256` is over the file of results.
    """

    replay_id: str
    name: str
    fingerprint: dict[str, str | None]
    results: dict[str, TaskResult]
    left_out: dict[str, int]
    sha256: str


def read_arm(folder: Path) -> ArmResults:
    """Read a finished replay. Raises `Conflict` where the folder is not one."""
    try:
        manifest = ReplayManifest.model_validate_json((folder / MANIFEST).read_bytes())
        with (folder / TASKS).open("rb") as file:
            results = {result.task_id: result for result in _tasks(file)}
    except FileNotFoundError:
        raise Conflict(
            f"replay {folder.name!r} is not finished; run it again, it goes on where it was",
            code="replay_unfinished",
        ) from None
    except ValidationError as error:
        raise Conflict(
            f"replay {folder.name!r} cannot be read: {error.errors(include_input=False)[0]['msg']}",
            code="replay_unreadable",
        ) from None
    return ArmResults(
        manifest.replay_id,
        manifest.name,
        {key: manifest.fingerprint.get(key) for key in FINGERPRINTS},
        results,
        manifest.left_out,
        next(file.sha256 for file in manifest.files if file.name == TASKS),
    )


def _tasks(lines: Iterable[bytes]) -> Iterator[TaskResult]:
    """The repeats of a task lie one after another."""
    repeats: list[Replay] = []
    for line in lines:
        record = Replay.model_validate_json(line)
        if repeats and repeats[0].evidence_id != record.evidence_id:
            yield _task(repeats)
            repeats = []
        repeats.append(record)
    if repeats:
        yield _task(repeats)


def _task(repeats: list[Replay]) -> TaskResult:
    last = repeats[-1]
    text = last.text or ""
    return TaskResult(
        task_id=last.evidence_id,
        group=last.group,
        work=last.work or last.group,
        kind=last.task.kind if last.task else None,
        role=last.role,
        outcomes=tuple(one.outcome for one in repeats),
        cost_usd=_mean([one.usage.cost_usd for one in repeats]),
        latency_ms=_mean([_latency_ms(one) for one in repeats]),
        text=text[:TEXT_MAX],
        text_length=len(text),
        codes=tuple(sorted({finding.code for finding in last.findings})),
        findings=tuple(last.findings[:FINDINGS_MAX]),
        findings_count=len(last.findings),
    )


def _latency_ms(record: Replay) -> float | None:
    """What all attempts took together."""
    each = [attempt.latency_ms for attempt in record.attempts]
    return sum(known) if len(known := [one for one in each if one is not None]) == len(each) else None


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
