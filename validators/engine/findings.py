"""Collects findings, puts them in their order, and draws the verdict from them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, JsonValue, ValidationError

from schemas.base import JsonObject
from schemas.verdicts import Severity, VerdictName

INDEX: Final = re.compile(r"[0-9]{1,18}")
"""A place in a list. Longer ones are keys: reading thousands of digits as a number takes too long."""

_PART: Final = re.compile(r"/fills/([0-9]{1,18})(?:/|$)")


def pointer(*parts: str | int) -> str:
    """An RFC 6901 pointer: `pointer("a/b", 0)` is `/a~1b/0`."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


@dataclass(slots=True)
class Found:
    """A `schemas.verdicts.Finding` in the making: as light as thousands of checks a second ask for."""

    code: str
    severity: Severity
    path: str
    message: str
    span: tuple[int, int] | None = None
    fix: JsonObject | None = None
    evidence: JsonObject | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """Its fields in the order of the schema; what there is none of is left out."""
        fields: dict[str, JsonValue] = {"code": self.code, "severity": self.severity, "path": self.path}
        if self.span is not None:
            fields["span"] = list(self.span)
        fields["message"] = self.message
        if self.fix is not None:
            fields["fix"] = self.fix
        if self.evidence is not None:
            fields["evidence"] = self.evidence
        return fields


class Report:
    """The findings on one artifact, as rules add them."""

    def __init__(self, severities: Mapping[str, Severity]) -> None:
        self._severities = severities
        self._findings: list[Found] = []

    def add(
        self,
        code: str,
        path: str,
        message: str,
        *,
        severity: Severity | None = None,
        span: tuple[int, int] | None = None,
        fix: JsonObject | None = None,
        evidence: JsonObject | None = None,
    ) -> None:
        """Note a finding. `severity` is given only by rules that tell two degrees of one code apart."""
        self._findings.append(
            Found(code, severity or self._severities[code], path, message, span, fix, evidence)
        )

    def add_shape_errors(self, error: ValidationError) -> None:
        """Note each way in which the artifact misses its model, at its pointer. Values are not repeated."""
        for detail in error.errors(include_url=False, include_input=False):
            self.add("schema.invalid", pointer(*detail["loc"]), detail["msg"])

    def sorted(self) -> list[Found]:
        """By place, then code, then span: the same for the same input, whatever order the rules ran in."""
        return sorted(self._findings, key=_order)


def _order(finding: Found) -> tuple[object, ...]:
    parts = tuple(
        (0, int(part), "") if INDEX.fullmatch(part) else (1, 0, part) for part in finding.path.split("/")
    )
    return parts, finding.code, finding.span or (-1, -1), finding.message


def check_shape(model: type[BaseModel], artifact: JsonValue, report: Report) -> None:
    """Note where `artifact` is not what `model` describes."""
    try:
        model.model_validate(artifact)
    except ValidationError as error:
        report.add_shape_errors(error)


def verdict_of(findings: Iterable[Found], parts: int) -> VerdictName:
    """What the findings amount to. `parts` is how many fills can stand on their own; 0 for other artifacts.

    An error on the whole, or on every part, rejects; errors on some parts leave the others accepted.
    """
    errors: set[int | None] = set()
    review = False
    for finding in findings:
        review = review or finding.severity == "review"
        if finding.severity == "error":
            match = _PART.match(finding.path) if parts else None
            errors.add(int(match[1]) if match else None)
    if None in errors or (errors and len(errors) >= parts):
        return "rejected"
    if errors:
        return "partially_accepted"
    return "needs_human_review" if review else "accepted"
