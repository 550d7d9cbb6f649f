"""What every kind of validator is: a description, and a pure function from artifact to findings."""

from dataclasses import dataclass
from typing import Protocol, TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from schemas.base import JsonObject
from services.errors import InvalidRequest, UnknownField
from services.faults import param_of, reason_of
from validators.backends import Roster
from validators.engine.findings import Found

ContextT = TypeVar("ContextT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Checked:
    """All findings, in order. `parts` is how many fills can stand alone, 0 where the artifact is one piece.

    `roster` is the snapshot that was looked at, if one was.
    """

    findings: list[Found]
    parts: int = 0
    roster: Roster | None = None
    as_of: str | None = None


class RosterNeeded(Protocol):
    """Gives the snapshot, or raises `Unavailable` with the remedy where there is none."""

    def __call__(self) -> Roster: ...


class Validator(Protocol):
    """One kind. `check` is pure: the same artifact, context, roster and policy give the same findings."""

    @property
    def kind(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def codes(self) -> dict[str, str]: ...

    @property
    def slow(self) -> bool:
        """Whether a check may be too long for the event loop, however small the artifact."""
        ...

    def artifact_schema(self) -> JsonObject: ...

    def context_schema(self) -> JsonObject: ...

    def check(self, artifact: JsonValue, context: JsonObject, roster: RosterNeeded) -> Checked:
        """Raises `InvalidRequest` for a context that cannot be understood."""
        ...

    def unreadable(self, reason: str) -> Checked:
        """What is found on a text that is not JSON."""
        ...


def parse_context(model: type[ContextT], context: JsonObject) -> ContextT:
    """The context as its model. Raises `InvalidRequest` naming the field."""
    try:
        return model.model_validate(context)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        param = param_of(("context", *first["loc"]))
        if first["type"] == "extra_forbidden":
            raise UnknownField(f"`{param}` is not a field of this context", param=param) from None
        raise InvalidRequest(f"`{param}`: {reason_of(first)}", param=param) from None
