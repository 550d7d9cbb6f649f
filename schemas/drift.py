"""A window of evidence in figures: what drift is measured on, and what is kept as a baseline."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from schemas.base import Measure, Model, Timestamp
from schemas.evidence import Category, Sha256
from schemas.replay import DriftProperty, Share, Window

DriftNumber = Literal["length", "latency", "cost"]
Value = Annotated[str, StringConstraints(max_length=512)]
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
Tasks = Annotated[int, Field(ge=0, le=10**8)]
Histogram = Annotated[list[tuple[Measure, Annotated[int, Field(ge=1, le=10**8)]]], Field(max_length=4096)]
"""Values, in order, and the number of tasks that have each."""


class TaskVerdict(Model):
    """How one task went: the share of its attempts that was accepted, and one of them."""

    accepted: Share
    evidence_id: Sha256


class DriftProfile(Model):
    """A window in figures, each task counted once whatever the number of its attempts. Repairs do not count.

    `inputs` has the number of tasks by the values of each property. `categories` and `findings` have, for
    each category and code, the tasks by the share of their attempts that have it; `numbers` has them by
    their mean, in bins of about two per cent. `verdicts` has tasks with a key, by a hash of it.
    `findings_full` says that rarer codes are not listed; `judged` is the number of tasks with verdicts.
    """

    kind: Literal["stillhouse.drift_profile"] = "stillhouse.drift_profile"
    version: Literal[1] = 1
    window: Window
    latest: Timestamp | None
    tasks: Tasks
    judged: Tasks
    inputs: dict[DriftProperty, Annotated[dict[Value, Tasks], Field(max_length=256)]]
    categories: dict[Category, Histogram]
    findings: Annotated[dict[Value, Histogram], Field(max_length=256)]
    findings_full: bool = False
    numbers: dict[DriftNumber, Histogram]
    verdicts: Annotated[dict[Hash, TaskVerdict], Field(max_length=20_000)]


class DriftFields(Model):
    """Which windows are compared: from `since` up to `until`, against what was from `baseline_since` up to
    `baseline_until`, or against the `profile` of another time or build.

    A baseline without an end goes up to where the window begins; where nothing says where that is, the later
    half is compared with the earlier one. `measure_only` makes the window's profile and compares nothing.
    `alpha` is the chance of a false alarm, over all that is tested together.
    """

    baseline_since: Timestamp | None = None
    baseline_until: Timestamp | None = None
    profile: DriftProfile | None = None
    measure_only: bool = False
    alpha: Annotated[float, Field(gt=0, le=0.5)] = 0.05
