"""`stillhouse.review`: what a person decided about a piece of evidence."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from schemas.base import Timestamp
from schemas.records import Record
from schemas.runs import RunOutput

Decision = Literal["accept", "reject", "correct"]


class Review(Record):
    """One decision of one reviewer. Decisions are added, never changed; each reviewer's latest one counts.

    `correction` is the answer as it should have been; it comes with `correct` and with nothing else.
    """

    schema_id: ClassVar[str] = "stillhouse.review"

    review_id: Annotated[str, Field(min_length=1)]
    ts: Timestamp
    evidence_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    decision: Decision
    by: Annotated[str, Field(min_length=1)]
    note: str | None = None
    correction: RunOutput | None = None

    @model_validator(mode="after")
    def _corrects_when_it_says_so(self) -> Self:
        if (self.decision == "correct") != (self.correction is not None):
            raise ValueError("`correction` comes with the decision `correct`, and with no other")
        return self
