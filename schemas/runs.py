"""`stillhouse.run`: one call of a model, as it was asked, answered and judged."""

from typing import ClassVar, Literal

from schemas.base import JsonObject, Measure, Model, RunId, SafeJson, Tally, Timestamp
from schemas.records import Record
from schemas.verdicts import Verdict

FeedbackKind = Literal["boolean", "float", "comment", "demonstration"]


class Task(Model):
    """What the run was for: the kind of work, and the key of the thing worked on (such as an order id)."""

    kind: str
    key: str | None = None


class RunRequest(Model):
    messages: list[JsonObject]
    tools: list[JsonObject] | None = None
    params: JsonObject = {}


class RetrievedText(Model):
    """A text that was put before the model, with its hash so that it can be found again."""

    collection: str
    id: str | int
    role: str | None = None
    score: Measure | None = None
    text: str
    text_sha256: str


class ModelRef(Model):
    provider: str
    name: str
    digest: str | None = None


class Attempt(Model):
    """One try at one candidate, failed ones included."""

    provider: str
    model: str
    status: Literal["ok", "failed", "aborted"]
    code: str | None = None
    latency_ms: Measure


class RunOutput(Model):
    content: str | None
    tool_calls: list[JsonObject] | None = None
    finish_reason: str | None = None


class Usage(Model):
    """Tokens and money. Unknown is null, never zero."""

    prompt_tokens: Tally | None = None
    completion_tokens: Tally | None = None
    cost_usd: Measure | None = None


class Run(Record):
    """One model call. `output` is null when nothing came back; `attempts` say why."""

    schema_id: ClassVar[str] = "stillhouse.run"

    run_id: RunId
    episode_id: RunId | None = None
    ts: Timestamp
    principal: str | None = None
    task: Task | None = None
    request: RunRequest
    retrieved_context: list[RetrievedText] = []
    model: ModelRef
    attempts: list[Attempt] = []
    output: RunOutput | None = None
    usage: Usage = Usage()
    latency_ms: Measure | None = None
    ttft_ms: Measure | None = None
    verdict: Verdict | None = None
    config_hash: str | None = None


class Feedback(Record):
    """`stillhouse.feedback`: what somebody said of a run or an episode afterwards."""

    schema_id: ClassVar[str] = "stillhouse.feedback"

    feedback_id: str
    ts: Timestamp
    run_id: RunId | None = None
    episode_id: RunId | None = None
    kind: FeedbackKind
    name: str | None = None
    value: SafeJson
    by: str


class VerdictRecord(Record):
    """`stillhouse.verdict`: a verdict that reached us apart from its run."""

    schema_id: ClassVar[str] = "stillhouse.verdict"

    run_id: RunId
    ts: Timestamp
    verdict: Verdict


class LineRejection(Model):
    """A line that was not taken. `line` counts from 1, blank lines included."""

    line: int
    code: str
    message: str


class RunsAccepted(Model):
    """The answer to `POST /v1/runs`. What is accepted is on disk; a record sent again counts as accepted."""

    accepted: int
    rejected: list[LineRejection]
    durability: Literal["fsync"] = "fsync"
