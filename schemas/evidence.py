"""Evidence and what is made of it: materialized runs, their categories, and the samples that are exported."""

from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from schemas.base import JsonObject, Model, SafeJson
from schemas.records import Record
from schemas.runs import FeedbackKind, ModelRef, RetrievedText, RunOutput, Task
from schemas.verdicts import Verdict

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]

Category = Literal["accepted", "partially_accepted", "rejected", "needs_human_review"]


class Source(Model):
    """Where a record came from, so that anybody can find the line again and check that it is unchanged.

    `key` is the record's own name in that source (`run_id` for `stillhouse`). `offset` and `length` are bytes
    of the line in `segment`, its line feed included; `line_sha256` is taken over the same bytes.
    """

    kind: str
    key: str
    segment: str
    offset: Count
    length: Count
    line_sha256: Sha256


class EvidenceInput(Model):
    """What was put before the model."""

    messages: list[JsonObject]
    tools: list[JsonObject] | None = None
    params: JsonObject = {}
    retrieved_context: list[RetrievedText] = []


class EvidenceFeedback(Model):
    """What somebody said afterwards, of this run or of the whole episode."""

    feedback_id: str
    ts: AwareDatetime
    scope: Literal["run", "episode"]
    kind: FeedbackKind
    name: str | None = None
    value: SafeJson
    by: str


class Evidence(Record):
    """`stillhouse.evidence`: one run with everything known about it, under an id made of its content.

    `evidence_id` covers source key, task, role, input, output and model, never a time, so the same run has
    the same id on every machine; verdict and feedback may join later without changing it. `role` is the
    job role of the retrieved texts, where they agree on one. `repair_of` names the failed attempt that this
    run was made to repair.
    """

    schema_id: ClassVar[str] = "stillhouse.evidence"

    evidence_id: Sha256
    source: Source
    episode_id: str | None = None
    task: Task | None = None
    role: str | None = None
    input: EvidenceInput
    output: RunOutput | None = None
    model: ModelRef
    verdict: Verdict | None = None
    feedback: list[EvidenceFeedback] = []
    repair_of: Sha256 | None = None


class Scored(Record):
    """`stillhouse.scored`: the category of one piece of evidence, with the codes of the reasons."""

    schema_id: ClassVar[str] = "stillhouse.scored"

    evidence_id: Sha256
    category: Category
    reasons: list[str]
    scorer_version: str
    policy_version: str


class RagSample(Record):
    """`stillhouse.rag`: an accepted answer, to be retrieved as a worked example.

    `query` is what was asked (the last user message of the original prompt), `text` the answer.
    """

    schema_id: ClassVar[str] = "stillhouse.rag"

    evidence_id: Sha256
    task: Task | None = None
    role: str | None = None
    query: str
    text: str


class SftSample(Record):
    """`stillhouse.sft`: a prompt and the accepted answer to it, before a target's form is chosen."""

    schema_id: ClassVar[str] = "stillhouse.sft"

    evidence_id: Sha256
    messages: list[JsonObject]
    tools: list[JsonObject] | None = None
    answer: RunOutput


class PreferenceSample(Record):
    """`stillhouse.preference`: one prompt, the accepted answer and the rejected draft that it replaced.

    `reasons` are the codes for which the draft was rejected.
    """

    schema_id: ClassVar[str] = "stillhouse.preference"

    evidence_id: Sha256
    rejected_evidence_id: Sha256
    messages: list[JsonObject]
    tools: list[JsonObject] | None = None
    chosen: RunOutput
    rejected: RunOutput
    reasons: list[str]


class EvidenceRef(Model):
    """A piece of evidence and where it came from."""

    evidence_id: Sha256
    source: Source


class Provenance(Record):
    """`stillhouse.provenance`: what stands behind one exported line. Lies beside the training file.

    `line` counts from 1. `rejected` is set for preference pairs alone, as are `reasons`.
    """

    schema_id: ClassVar[str] = "stillhouse.provenance"

    line: Annotated[int, Field(ge=1)]
    line_sha256: Sha256
    evidence_id: Sha256
    source: Source
    rejected: EvidenceRef | None = None
    reasons: list[str] = []


class Quarantined(Record):
    """`stillhouse.quarantine`: a record that was left out, and why. Nothing is left out silently.

    `reason` is a code, `detail` a sentence without the record's own words. `evidence_id` is null for lines
    that never became evidence.
    """

    schema_id: ClassVar[str] = "stillhouse.quarantine"

    reason: str
    detail: str
    source: Source
    evidence_id: Sha256 | None = None


class ProductFile(Model):
    """A finished file. `sha256` is over its bytes."""

    name: str
    sha256: Sha256
    lines: Count
    bytes: Count


class SegmentManifest(Model):
    """What a sealed segment of the log must look like for ever."""

    segment: str
    sha256: Sha256
    lines: Count
    bytes: Count


class DatasetManifest(Model):
    """A dataset folder's table of contents. `dataset_id` is made of the files' hashes.

    `counts["in"]` is the sum of the other counts.
    """

    dataset_id: str
    kind: str
    target: str
    files: list[ProductFile]
    counts: dict[str, Count]
    evidence_sha256: Sha256
    scored_sha256: Sha256
    scorer_version: str
    policy_version: str
