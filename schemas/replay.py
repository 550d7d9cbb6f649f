"""Replays of recorded tasks, and what has drifted between two windows of evidence."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from schemas.base import JsonObject, Measure, Model, RunId, Tally, Timestamp
from schemas.evidence import Category, Count, ProductFile, Sha256, SplitName
from schemas.records import Record
from schemas.runs import ModelRef, Task, Usage
from schemas.vectors import CollectionName
from schemas.verdicts import Finding, VerdictName

ReplayMode = Literal["live", "cassette", "refresh", "recorded"]
ReplayOutcome = Literal["local_pass", "local_repaired", "escalated_pass", "failed"]
CallMode = Literal["live", "cassette", "refresh"]
Share = Annotated[float, Field(ge=0, le=1)]
DriftProperty = Literal["model", "config", "prompt", "roster", "policy", "role"]
DriftMetric = Literal["verdict_flip", "category", "finding", "length", "latency", "cost"]
ReplayId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,95}$")]
CassetteName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
ModelName = Annotated[str, Field(min_length=1, max_length=256)]


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

    `evidence_id` is the recording; `group` what it belongs to, from which nothing was retrieved; `work` the
    same without near duplicates, that is what shares an order, an episode or a prompt with it; `context`
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
    work: str | None = None


class ReplayFields(Model):
    """What is to be done again, on what, and how far it may go. A replay with the same values goes on where
    one of them was stopped.

    Tasks: `category` is what came of the task in the end; `dataset` (of a `split`) and `evidence_ids` name
    them; `like` takes those of another replay. Of more than `limit`, a sample is drawn that is the same each
    time. The arm: `models` from the cheapest to the strongest, or `recorded`, which asks nobody and has the
    recorded answers validated anew; `contexts` is how many texts of earlier work from `collection` go with a
    task. `repeats` runs each task several times, with `seed` and the numbers after it where there is one.

    `mode` says where answers come from: from the models (`live`), from a cassette alone, or from the models
    and into the cassette (`refresh`). Budgets are for the whole replay. `fresh` throws away what an earlier
    one left unfinished.
    """

    models: Annotated[list[ModelName], Field(min_length=1, max_length=8)] | None = None
    recorded: bool = False
    attempts_max: Annotated[int, Field(ge=1, le=16)] = 3
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    contexts: Annotated[int, Field(ge=0, le=20)] = 0
    collection: CollectionName = "distilled"
    category: Category | None = None
    role: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    since: Timestamp | None = None
    until: Timestamp | None = None
    dataset: Annotated[str, Field(max_length=128)] | None = None
    split: SplitName | None = None
    evidence_ids: Annotated[list[Sha256], Field(min_length=1, max_length=10_000)] | None = None
    like: ReplayId | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    mode: CallMode = "live"
    cassette: CassetteName = "default"
    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 4
    budget_calls: Annotated[int, Field(ge=1)] | None = None
    budget_tokens: Annotated[int, Field(ge=1)] | None = None
    budget_usd: Annotated[float, Field(gt=0)] | None = None
    name: ReplayId | None = None
    fresh: bool = False


class ReplayOptions(ReplayFields):
    """All that a replay is told: its own fields, and those that it shares with other stages.

    `kind` is the kind of task.
    """

    kind: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None


class ReplayArm(Model):
    """One configuration that tasks are run under. `collection` is null where no earlier work is shown."""

    models: list[str]
    recorded: bool
    attempts_max: int
    temperature: float | None
    seed: int | None
    contexts: int
    collection: str | None


class ReplayManifest(Model):
    """What a finished replay is. `name` is the arm's; `counts["in"]` is the sum of the other counts.

    `fingerprint` says what shaped answers and verdicts: `config` of chatd, `prompt` (all that was asked),
    `roster`, `models` with their digests, and `policy` of the validators; null where unknown. `left_out`
    counts by reason the tasks without a result, `spent` the calls, tokens and money, null where unknown.
    """

    replay_id: ReplayId
    name: str
    mode: ReplayMode
    cassette: str | None
    arm: ReplayArm
    selection: JsonObject
    repeats: int
    fingerprint: dict[str, str | None]
    counts: dict[str, Count]
    left_out: dict[str, Count]
    spent: dict[str, Measure | None]
    files: list[ProductFile]


class ReplayPage(Model):
    """Finished replays in the order of their ids."""

    replays: list[ReplayManifest]
    cursor: str | None = None


class Window(Model):
    """The evidence of a time or of a build; `until` is not part of it."""

    name: str
    since: Timestamp | None = None
    until: Timestamp | None = None
    evidence_sha256: str | None = None
    count: Tally


class InputDrift(Model):
    """What the work was done with: the share of each value of `property` in both windows, by tasks.

    `distance` is the share of tasks that would need another value for the windows to be alike.
    """

    property: DriftProperty
    baseline: dict[str, Share]
    current: dict[str, Share]
    distance: Share = 0
    p: Share | None = None
    drifted: bool = False


class OutputDrift(Model):
    """What came of it. `difference` is current less baseline; `p` is after Holm's correction.

    `category` and `finding` are the shares of tasks with `key`, `verdict_flip` the share that was accepted
    of those tasks that are in both windows; `length` (characters), `latency` (milliseconds) and `cost` (US
    dollars) are medians. `baseline_tasks` and `current_tasks` are what each rests on.
    """

    metric: DriftMetric
    key: str | None = None
    baseline: Measure | None
    current: Measure | None
    difference: Measure | None
    interval: tuple[Measure, Measure] | None = None
    p: Share | None = None
    drifted: bool
    baseline_tasks: Tally = 0
    current_tasks: Tally = 0


class Flip(Model):
    """A task that is `accepted` now and was not, or the other way; a piece of evidence from each window."""

    baseline_evidence_id: str
    current_evidence_id: str
    accepted: bool


class Drift(Record):
    """`stillhouse.drift`: two windows compared, what went in apart from what came out.

    `ts` is the time of the latest evidence in them. `flips` names some of the tasks whose verdict changed.
    """

    schema_id: ClassVar[str] = "stillhouse.drift"

    ts: Timestamp
    baseline: Window
    current: Window
    inputs: list[InputDrift]
    outputs: list[OutputDrift]
    flips: list[Flip] = []
    alpha: Share
    parameters: JsonObject = {}
