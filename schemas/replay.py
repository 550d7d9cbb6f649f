"""Replays of recorded tasks, and what has drifted between two windows of evidence."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from schemas.base import JsonObject, Measure, Model, RunId, Tally, Timestamp
from schemas.records import Record
from schemas.runs import ModelRef, Task, Usage
from schemas.verdicts import Finding, VerdictName

ReplayMode = Literal["live", "cassette", "refresh", "recorded"]
ReplayOutcome = Literal["local_pass", "local_repaired", "escalated_pass", "failed"]
Share = Annotated[float, Field(ge=0, le=1)]


class ReplayAttempt(Model):
    """One run of the replay; `codes` are the findings that it was refused for."""

    run_id: RunId
    model: ModelRef
    verdict: VerdictName | None = None
    codes: list[str] = []
    usage: Usage = Usage()
    latency_ms: Measure | None = None


class Replay(Record):
    """`stillhouse.replay`: a recorded task that was run again, with every attempt in its order.

    `evidence_id` is the recording; `group` what it belongs to, from which nothing was retrieved; `context`
    the evidence that was. `config_hash` covers what shaped the replay: models, prompts, roster, policy.
    `arm` names the configuration, `repeat` counts from 0. `text` and `findings` are of the last answer. In
    the mode `recorded`, nothing was asked again: the recorded answers were validated anew.
    """

    schema_id: ClassVar[str] = "stillhouse.replay"

    replay_id: Annotated[str, Field(min_length=1)]
    ts: Timestamp
    evidence_id: str
    group: str
    episode_id: RunId
    task: Task | None = None
    mode: ReplayMode
    outcome: ReplayOutcome
    attempts: Annotated[list[ReplayAttempt], Field(min_length=1)]
    context: list[str] = []
    config_hash: str
    usage: Usage = Usage()
    arm: str = ""
    repeat: Tally = 0
    role: str | None = None
    text: str | None = None
    findings: list[Finding] = []


class Window(Model):
    """The evidence of a time or of a build; `until` is not part of it."""

    name: str
    since: Timestamp | None = None
    until: Timestamp | None = None
    evidence_sha256: str | None = None
    count: Tally


class InputDrift(Model):
    """What the work was done with: the share of each value of `property` in both windows."""

    property: Literal["model", "config", "prompt", "roster", "policy", "role"]
    baseline: dict[str, Share]
    current: dict[str, Share]


class OutputDrift(Model):
    """What came of it. `difference` is current less baseline; `p` is after Holm's correction."""

    metric: Literal["verdict_flip", "category", "finding", "length", "latency", "cost"]
    key: str | None = None
    baseline: Measure | None
    current: Measure | None
    difference: Measure | None
    interval: tuple[Measure, Measure] | None = None
    p: Share | None = None
    drifted: bool


class Drift(Record):
    """`stillhouse.drift`: two windows compared, what went in apart from what came out."""

    schema_id: ClassVar[str] = "stillhouse.drift"

    ts: Timestamp
    baseline: Window
    current: Window
    inputs: list[InputDrift]
    outputs: list[OutputDrift]
    alpha: Share
    parameters: JsonObject = {}
