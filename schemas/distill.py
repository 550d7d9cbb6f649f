"""What is said to and by `distill`: feedback, jobs, lists of evidence and datasets."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from schemas.base import Model, RunId, SafeJson
from schemas.errors import ErrorBody
from schemas.evidence import Category, Count, DatasetManifest, Evidence, ProductFile, Scored
from schemas.proof import Audit, ReceiptRef
from schemas.review import Decision
from schemas.runs import Feedback, FeedbackKind, Run, RunOutput, VerdictRecord

Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=64)]
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


class RunView(Model):
    """A run with everything that was said of it.

    `evidence_id` is known at once, since it is made of the run's content; `category` once it was scored.
    """

    run: Run
    verdicts: list[VerdictRecord]
    feedback: list[Feedback]
    evidence_id: str
    category: Category | None = None


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


class JobRequest(Model):
    """A stage to run. `source` belongs to `materialize`, `sample`, `seed` and `all` to `audit`, the rest to
    `export`.

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
    receipt: ReceiptRef | None = None
    audit: Audit | None = None
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


class DatasetPage(Model):
    """Datasets in the order of their ids."""

    datasets: list[DatasetManifest]
    cursor: str | None = None
