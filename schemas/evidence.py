"""Evidence and what is made of it: materialized runs, their categories, and the samples that are exported."""

from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from schemas.base import JsonObject, Measure, Model, SafeJson
from schemas.records import Record
from schemas.review import Decision
from schemas.runs import FeedbackKind, ModelRef, RetrievedText, RunOutput, Task, Usage
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


class EvidenceReview(Model):
    """What a person decided on this piece of evidence, as in `stillhouse.review`."""

    review_id: str
    ts: AwareDatetime
    decision: Decision
    by: str
    note: str | None = None
    correction: RunOutput | None = None


class Evidence(Record):
    """`stillhouse.evidence`: one run with everything known about it, under an id made of its content.

    `evidence_id` covers source key, task, role, input, output and model, never a time, so the same run has
    the same id on every machine; verdict and feedback may join later without changing it. `role` is the
    job role of the retrieved texts, where they agree on one. `repair_of` names the failed attempt that this
    run was made to repair, `repaired_by` the first run that was made to repair this one. `ts`, `latency_ms`
    and `config_hash` are the run's own, where its source tells them. `duplicates` counts the records beyond
    the first that said the same.
    """

    schema_id: ClassVar[str] = "stillhouse.evidence"

    evidence_id: Sha256
    source: Source
    ts: AwareDatetime | None = None
    episode_id: str | None = None
    task: Task | None = None
    role: str | None = None
    input: EvidenceInput
    output: RunOutput | None = None
    model: ModelRef
    usage: Usage = Usage()
    latency_ms: Measure | None = None
    config_hash: str | None = None
    verdict: Verdict | None = None
    feedback: list[EvidenceFeedback] = []
    review: list[EvidenceReview] = []
    repair_of: Sha256 | None = None
    repaired_by: Sha256 | None = None
    duplicates: Count = 0


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


SplitName = Literal["train", "validation", "holdout"]


class Duplicates(Model):
    """How many further pieces of evidence say the same as a row: `exact` gave the very same row and were left
    out, `near` are alike but for a few words and the values of their slots, and have rows of their own.
    """

    exact: Count = 0
    near: Count = 0


class Provenance(Record):
    """`stillhouse.provenance`: what stands behind one exported line. Lies beside the training file.

    `line` counts from 1. `split` is the file's; rows of one `group` are never in two splits. `input_sha256`
    is over the canonical form of the prompt, messages and tools, as the model saw it. `rejected` is set for
    preference pairs alone, as are `reasons`, `margin` and `pair`, which says where the pair comes from: a
    repair, a correction by a person, or two answers to one prompt. `correction` names the review or feedback
    that holds the answer, where the row has a person's and not the model's. `masked` counts personal values
    for which a placeholder stands in the row.
    """

    schema_id: ClassVar[str] = "stillhouse.provenance"

    line: Annotated[int, Field(ge=1)]
    line_sha256: Sha256
    evidence_id: Sha256
    source: Source
    split: SplitName | None = None
    group: str | None = None
    input_sha256: Sha256 | None = None
    duplicates: Duplicates = Duplicates()
    masked: Count = 0
    pair: Literal["repair", "correction", "feedback"] | None = None
    correction: str | None = None
    rejected: EvidenceRef | None = None
    reasons: list[str] = []
    margin: Measure | None = None


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
    """A dataset folder's table of contents. `dataset_id` is made of the files' hashes and the options.

    `counts["in"]` is the sum of the other counts; `splits` says how the rows are shared out. `reasons` counts
    what was left out by reason, `pii` the rows in which something of a class was masked. `public_key` (PEM)
    checks the receipt beside the files; it differs from machine to machine, and is no part of the id.
    """

    dataset_id: str
    kind: str
    target: str
    files: list[ProductFile]
    counts: dict[str, Count]
    splits: dict[SplitName, Count] = {}
    groups: Count = 0
    reasons: dict[str, Count] = {}
    pii: dict[str, Count] = {}
    options: JsonObject = {}
    evidence_sha256: Sha256
    scored_sha256: Sha256
    scorer_version: str
    policy_version: str
    key_id: str | None = None
    public_key: str | None = None
