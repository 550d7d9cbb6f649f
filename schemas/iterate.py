"""What is said about iteration: generate, validate, repair, until the artifact holds or the budget ends."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.base import SAFE_INTEGER_MAX, Measure, Model, RunId, SafeJson
from schemas.chat import ChatMessage, ValidateSpec
from schemas.runs import ModelRef, Usage
from schemas.vectors import CollectionName
from schemas.verdicts import Finding, Verdict, VerdictName

Outcome = Literal["first_pass", "repaired", "escalated", "failed"]


class RetrieveSpec(Model):
    """Where to look for notes. `query` is the last user message unless given."""

    collections: Annotated[list[CollectionName], Field(min_length=1, max_length=16)]
    role: str | None = None
    k: Annotated[int, Field(ge=1, le=100)] = 5
    query: Annotated[str, Field(min_length=1)] | None = None


class GivenNote(Model):
    """A note that the caller has already, as a hit of vectord has it; `worker_id` is whom it is about."""

    collection: CollectionName
    id: str | int
    role: str | None = None
    score: Measure | None = None
    text: Annotated[str, Field(min_length=1)]
    worker_id: str | None = None


class IterateRequest(Model):
    """One model, or several from the cheapest to the strongest. `notes` come before those of `retrieve`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    model: Annotated[str, Field(min_length=1)] | None = None
    models: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=8)] | None = (
        None
    )
    validate_: ValidateSpec = Field(alias="validate")
    retrieve: RetrieveSpec | None = None
    notes: Annotated[list[GivenNote], Field(max_length=100)] = []
    attempts_max: Annotated[int, Field(ge=1, le=16, strict=True)] = 3
    temperature: Annotated[float, Field(ge=0, le=2, strict=True)] | None = None
    seed: Annotated[int, Field(ge=-SAFE_INTEGER_MAX, le=SAFE_INTEGER_MAX)] | None = None

    @model_validator(mode="after")
    def _has_models(self) -> Self:
        if (self.model is None) == (self.models is None):
            raise ValueError("exactly one of `model` and `models` is needed")
        if self.attempts_max < len(self.candidates):
            raise ValueError(
                f"`attempts_max` is {self.attempts_max}; each of {len(self.candidates)} `models` needs one"
            )
        return self

    @property
    def candidates(self) -> list[str]:
        """The models in the order in which they are tried."""
        return self.models or [self.model or ""]


class IterateAttempt(Model):
    """One generation. `artifact` and `verdict` are null when the model's provider failed; its run says why.

    `model` is what was asked for, `served_by` who answered.
    """

    model: str
    artifact: SafeJson
    findings: list[Finding]
    usage: Usage
    run_id: RunId
    verdict: VerdictName | None = None
    served_by: ModelRef | None = None
    latency_ms: Measure | None = None


class IterateResponse(Model):
    """The best artifact and its verdict. `ok` is true when the validator accepted it.

    `config_hash` names the configuration of chatd that the best artifact was made under.
    """

    ok: bool
    artifact: SafeJson
    verdict: Verdict
    outcome: Outcome
    attempts: list[IterateAttempt]
    episode_id: RunId
    config_hash: str | None = None

    @property
    def tokens(self) -> int:
        """Those of all attempts, as far as they were counted."""
        usages = [one.usage for one in self.attempts]
        return sum((usage.prompt_tokens or 0) + (usage.completion_tokens or 0) for usage in usages)
