"""Arms of comparisons for tests: in memory by their outcomes, and as the folders that replays leave."""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from distill.engine.compare.results import FINGERPRINTS, ArmResults, TaskResult
from distill.engine.compare.verdict import Terms
from schemas.evidence import ProductFile
from schemas.replay import Replay, ReplayArm, ReplayAttempt, ReplayManifest, ReplayOutcome
from schemas.runs import ModelRef, Task, Usage
from schemas.verdicts import Finding

Outcomes = Sequence[ReplayOutcome | Sequence[ReplayOutcome]]
"""What came of each task: one outcome, or one for each repeat."""

POLICY = "1" * 64
TERMS = Terms(confidence=0.95, seed=0, counting="own", independent="group", gate=None, across_policies=False)
PASSED: ReplayOutcome = "local_pass"
FAILED: ReplayOutcome = "failed"


def own_group(number: int) -> str:
    return f"g{number}"


@cache
def task_id(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def repeats_of(outcome: ReplayOutcome | Sequence[ReplayOutcome]) -> tuple[ReplayOutcome, ...]:
    return (outcome,) if isinstance(outcome, str) else tuple(outcome)


def arm(
    name: str,
    outcomes: Outcomes,
    *,
    group: Callable[[int], str] = own_group,
    first: int = 0,
    policy: str | None = POLICY,
    latency_ms: float | None = 100.0,
    role: Callable[[int], str | None] = lambda _: "welder",
) -> ArmResults:
    """Tasks numbered from `first`, in memory."""
    results = {
        task_id(number): TaskResult(
            task_id(number),
            group(number),
            own_group(number),
            "email",
            role(number),
            repeats_of(outcome),
            None,
            latency_ms,
        )
        for number, outcome in enumerate(outcomes, first)
    }
    fingerprint = dict.fromkeys(FINGERPRINTS, None) | {"policy": policy}
    return ArmResults(name, name, fingerprint, results, {}, name)


def passing(*counts: tuple[int, ReplayOutcome]) -> list[ReplayOutcome]:
    """So many tasks of each outcome, one after another."""
    return [outcome for count, outcome in counts for _ in range(count)]


def arms_of_table(both: int, better: int, worse: int, neither: int) -> tuple[ArmResults, ArmResults]:
    """Two arms whose paired outcomes are this table of two by two."""
    baseline = passing((both, PASSED), (better, FAILED), (worse, PASSED), (neither, FAILED))
    current = passing((both, PASSED), (better, PASSED), (worse, FAILED), (neither, FAILED))
    return arm("baseline", baseline), arm("current", current)


def write(
    data: Path,
    name: str,
    outcomes: Outcomes,
    *,
    group: Callable[[int], str] = own_group,
    text: str = "Dear welder,",
    policy: str | None = POLICY,
) -> Path:
    """A finished replay below `data`; its folder."""
    folder = data / "replays" / name
    folder.mkdir(parents=True)
    records = [
        _record(name, number, repeat, outcome, group=group(number), text=text)
        for number, repeats in enumerate(outcomes)
        for repeat, outcome in enumerate(repeats_of(repeats))
    ]
    records.sort(key=lambda record: (record.evidence_id, record.repeat))
    content = b"".join(record.to_line() for record in records)
    (folder / "tasks.jsonl").write_bytes(content)
    product = ProductFile(
        name="tasks.jsonl",
        sha256=hashlib.sha256(content).hexdigest(),
        lines=len(records),
        bytes=len(content),
    )
    (folder / "manifest.json").write_text(_manifest(name, len(outcomes), policy, product).model_dump_json())
    return folder


def _record(name: str, number: int, repeat: int, outcome: ReplayOutcome, *, group: str, text: str) -> Replay:
    found = Finding(code="email.body_missing", severity="error", path="/body", message="The body is <empty>.")
    return Replay.model_validate(
        {
            "replay_id": name,
            "ts": "2026-11-02T06:00:00Z",
            "evidence_id": task_id(number),
            "group": group,
            "episode_id": f"e{number}",
            "task": Task(kind="email"),
            "role": "welder",
            "mode": "live",
            "outcome": outcome,
            "arm": name,
            "repeat": repeat,
            "attempts": [
                ReplayAttempt(
                    run_id=f"r{number}.{repeat}",
                    model=ModelRef(provider="ollama", name=name),
                    latency_ms=100.0 + number,
                )
            ],
            "config_hash": "c",
            "usage": Usage(cost_usd=0.001),
            "text": f"{text}\nnumber {number}, {name}",
            "findings": [found] if outcome == "failed" else [],
        }
    )


def _manifest(name: str, tasks: int, policy: str | None, product: ProductFile) -> ReplayManifest:
    return ReplayManifest(
        replay_id=name,
        name=name,
        mode="live",
        cassette=None,
        arm=ReplayArm(
            models=[name],
            recorded=False,
            attempts_max=3,
            temperature=None,
            seed=None,
            contexts=0,
            collection=None,
        ),
        selection={},
        repeats=1,
        fingerprint={
            "config": "2" * 64,
            "prompt": hashlib.sha256(name.encode()).hexdigest(),
            "policy": policy,
        },
        counts={"in": tasks, "replayed": tasks},
        left_out={},
        spent={},
        files=[product],
    )
