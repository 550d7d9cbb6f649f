"""What is said to and by `distill`: feedback, jobs, lists of evidence and datasets."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from schemas.base import Model, RunId, SafeJson, Timestamp
from schemas.comparison import Comparison, ComparisonFields
from schemas.drift import DriftFields
from schemas.errors import ErrorBody
from schemas.evidence import (
    Category,
    Count,
    DatasetManifest,
    Evidence,
    EvidenceReview,
    ProductFile,
    Scored,
    Sha256,
    SplitName,
)
from schemas.proof import Audit, ReceiptRef
from schemas.replay import Drift, ReplayFields, ReplayMode, ReplayOutcome
from schemas.review import Decision
from schemas.runs import Feedback, FeedbackKind, ModelRef, Run, RunOutput, VerdictRecord
from schemas.verdicts import VerdictName

Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=64)]
ReviewState = Literal["undecided", "decided", "disagreed"]
JobState = Literal["queued", "running", "done", "failed"]

PiiClass = Literal["ssn", "card", "bank", "phone", "email", "name"]
PiiAction = Literal["mask", "quarantine", "keep"]
PiiGraveAction = Literal["mask", "quarantine"]
Share = Annotated[float, Field(ge=0, le=1)]


class FeedbackRequest(Model):
    """What somebody says of one run or of one episode; exactly one of the two is named.

    `value` is true or false for `boolean`, a number for `float`, a text for `comment` and the corrected
    output for `demonstration`.
    """

    run_id: RunId | None = None
    episode_id: RunId | None = None
    kind: FeedbackKind
    name: Name | None = None
    value: SafeJson
    by: Name


class ReviewRequest(Model):
    """What somebody decides about a piece of evidence.

    `correction` is the answer as it should have been, as an output or as its text alone; it comes with
    `correct`, and with nothing else.
    """

    decision: Decision
    by: Name
    note: Annotated[str, StringConstraints(max_length=10_000)] | None = None
    correction: RunOutput | str | None = None


class EpisodeRun(Model):
    """One run of an episode, as evidence. `repair_of` is the piece of evidence that it was made to repair."""

    run_id: str
    evidence_id: Sha256
    ts: Timestamp | None
    model: ModelRef
    verdict: VerdictName | None
    category: Category | None
    repair_of: Sha256 | None


class ExportedRow(Model):
    """A line of a dataset that holds a run: as the `row` itself, or as the `rejected` side of a pair."""

    dataset_id: str
    file: str
    line: Annotated[int, Field(ge=1)]
    split: SplitName | None
    part: Literal["row", "rejected"]


class ReplayedTask(Model):
    """A replay of a run, and the runs that it made."""

    replay_id: str
    arm: str
    repeat: Count
    mode: ReplayMode
    outcome: ReplayOutcome
    run_ids: list[RunId]


class RunLife(Model):
    """What became of a run: null and empty until the stages got to it.

    `episode` has the runs of its episode, this one too, as of the last `materialize`. `complete` is false
    where there were more datasets and replays than one question searches; the newest come first.
    """

    evidence: Evidence | None
    scored: Scored | None
    episode: list[EpisodeRun]
    rows: list[ExportedRow]
    replays: list[ReplayedTask]
    complete: bool


class RunView(Model):
    """A run with everything that was said of it.

    `evidence_id` is known at once, since it is made of the run's content; `category` once it was scored.
    `life` is told where it is asked for.
    """

    run: Run
    verdicts: list[VerdictRecord]
    feedback: list[Feedback]
    evidence_id: str
    category: Category | None = None
    life: RunLife | None = None


class SplitShares(Model):
    """How much of a dataset each split is to hold, of 1 in all. Groups stay whole: shares are only neared."""

    train: Share = 0.8
    validation: Share = 0.1
    holdout: Share = 0.1

    @model_validator(mode="after")
    def _check_sum(self) -> Self:
        if abs(self.train + self.validation + self.holdout - 1) > 1e-6:
            raise ValueError("the shares of train, validation and holdout do not add up to 1")
        if self.train == 0:
            raise ValueError("nothing would be left to train on")
        return self


class PiiPolicy(Model):
    """What becomes of personal data in a training row: a placeholder stands for it (`mask`), the row is left
    out (`quarantine`), or it stays (`keep`), which is refused for numbers of people, cards and banks.
    """

    ssn: PiiGraveAction = "mask"
    card: PiiGraveAction = "mask"
    bank: PiiGraveAction = "mask"
    phone: PiiAction = "mask"
    email: PiiAction = "mask"
    name: PiiAction = "mask"


class JobRequest(ReplayFields, ComparisonFields, DriftFields):
    """A stage to run. `source` belongs to `materialize`, `sample`, `seed` and `all` to `audit`, the fields of
    `ReplayFields` with `kind` and `seed` to `replay`, those of `ComparisonFields` with `seed` to `compare`,
    those of `DriftFields` with `since`, `until` and `seed` to `drift`, `collection`, `embed_model`,
    `include_partial` and `pii` to `index`, the rest to `export`.

    An audit follows `sample` links a file back to the raw bytes, drawn with `seed`; with `all`, every one.

    `include_partial` lets partially accepted answers in. `salt` chooses another split; what was held out
    under a salt stays held out under it. `holdout_days` also holds out the last days of the data.
    `margin_min` is the least by which the judgements of a preference pair differ: 1 between accepted and
    rejected, 0.5 where one is partially accepted.
    """

    stage: Word
    source: Word | None = None
    kind: Word | None = None
    target: Word | None = None
    include_partial: bool = False
    shares: SplitShares = SplitShares()
    salt: Annotated[str, StringConstraints(max_length=256)] = ""
    holdout_days: Annotated[int, Field(ge=1, le=36_500)] | None = None
    margin_min: Annotated[float, Field(ge=0, le=1)] = 0.5
    pii: PiiPolicy = PiiPolicy()
    sample: Annotated[Count, Field(le=10**9)] = 1000
    seed: Annotated[Count, Field(le=2**32 - 1)] = 0
    all: bool = False
    embed_model: Word | None = None


class JobAccepted(Model):
    job_id: str


class Job(Model):
    """How far a job is. `progress` runs from 0 to 1; `counts["in"]` is the sum of the other outcomes."""

    job_id: str
    stage: str
    state: JobState
    progress: Annotated[float, Field(ge=0, le=1)]
    counts: dict[str, Count] = {}
    products: list[ProductFile] = []
    dataset_id: str | None = None
    replay_id: str | None = None
    receipt: ReceiptRef | None = None
    audit: Audit | None = None
    comparison: Comparison | None = None
    drift: Drift | None = None
    error: ErrorBody | None = None


class EvidenceItem(Model):
    """A piece of evidence, with its category once it was scored."""

    evidence: Evidence
    scored: Scored | None = None


class EvidencePage(Model):
    """Evidence in the order of its ids. `cursor` asks for what follows; without one this was the end.

    A page may hold fewer items than asked for, or none, and still have a cursor: a filter looks at a
    bounded number of records a page.
    """

    evidence: list[EvidenceItem]
    cursor: str | None = None


class ReviewValue(Model):
    """What a decision on a piece of evidence is worth: 0.5 disagreement + 0.3 novelty + 0.2 frequency.

    `disagreement` is 1 where reviewers decided differently, 0.75 where people's votes contradict the
    validators, 0.5 where they contradict one another. Pieces are alike when they have the same finding
    codes, kind of work and job role: `frequency` is 1 - 1 / `alike`, the number that wait; `novelty` falls
    with the number that were `decided` and that come before this one in the queue.
    """

    score: Share
    disagreement: Share
    novelty: Share
    frequency: Share
    alike: Count
    decided: Count


class ReviewItem(EvidenceItem):
    """A piece of evidence as reviewers see it. `decisions` are all that were made, those included on which
    the evidence and its category do not go yet. `value` is null for what does not wait.
    """

    value: ReviewValue | None = None
    state: ReviewState
    decisions: list[EvidenceReview]


class ReviewPage(Model):
    """What waits for a person. `cursor` asks for what follows; without one this was the end.

    `waiting` counts all that the question covers; `left_out` is what a very long queue does not show yet.
    """

    evidence: list[ReviewItem]
    cursor: str | None = None
    waiting: Count
    left_out: Count = 0


class Agreement(Model):
    """How far reviewers agree: Krippendorff's alpha over their latest decisions, 1 for full agreement and 0
    for what chance gives. It is null where it is not defined; `reason` then says why.

    `items` were decided by two reviewers or more, with `decisions` in all; `observed` is the share of
    pairs of decisions that agree. `decided` counts the items that anybody decided.
    """

    alpha: Annotated[float, Field(le=1)] | None
    reason: str | None = None
    observed: Share | None = None
    items: Count
    decisions: Count
    reviewers: Count
    decided: Count


class DatasetPage(Model):
    """Datasets in the order of their ids."""

    datasets: list[DatasetManifest]
    cursor: str | None = None
