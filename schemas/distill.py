"""What is said to and by `distill`: feedback, jobs, lists of evidence and datasets."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from schemas.base import Model, RunId, SafeJson
from schemas.errors import ErrorBody
from schemas.evidence import Category, Count, DatasetManifest, Evidence, ProductFile, Scored
from schemas.runs import Feedback, FeedbackKind, Run, VerdictRecord

Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=64)]
JobState = Literal["queued", "running", "done", "failed"]


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


class RunView(Model):
    """A run with everything that was said of it.

    `evidence_id` is known at once, since it is made of the run's content; `category` once it was scored.
    """

    run: Run
    verdicts: list[VerdictRecord]
    feedback: list[Feedback]
    evidence_id: str
    category: Category | None = None


class JobRequest(Model):
    """A stage to run. `kind` and `target` belong to `export`, `source` to `materialize`."""

    stage: Word
    source: Word | None = None
    kind: Word | None = None
    target: Word | None = None


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
