"""What a verdict rests on: one policy, the validators made from it, and one snapshot of the roster."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from pydantic import JsonValue

from schemas.verdicts import ValidatorInfo
from services.errors import InvalidRequest, Unavailable
from validators.backends import Roster
from validators.engine.plugins import PluggedValidator
from validators.engine.policy import Policy
from validators.engine.validator import Validator


class Rules:
    """A policy and everything that was made from it. Never changes: another policy makes other rules."""

    def __init__(
        self, policy: Policy, own: Sequence[Validator], plugged: Sequence[PluggedValidator] = ()
    ) -> None:
        self.policy: Final = policy
        self.validators: Final = {validator.kind: validator for validator in (*own, *plugged)}
        names = {validator.kind: f"stillhouse.{validator.kind}" for validator in own}
        names |= {validator.kind: validator.name for validator in plugged}
        self.infos: Final[dict[str, dict[str, JsonValue]]] = {
            kind: ValidatorInfo(
                name=names[kind], version=validator.version, policy_version=policy.version
            ).model_dump()
            for kind, validator in self.validators.items()
        }

    def validator(self, kind: str) -> Validator:
        """Raises `InvalidRequest` for a kind that nobody validates."""
        validator = self.validators.get(kind)
        if validator is None:
            kinds = ", ".join(f"`{known}`" for known in self.validators)
            raise InvalidRequest(
                f"`kind` is not known here; it may be {kinds}", code="unknown_kind", param="kind"
            )
        return validator


@dataclass(frozen=True, slots=True)
class Basis:
    """Rules, and a roster whose index is keyed by their policy. The two are only ever exchanged together.

    The problems say what is wrong with the newest file of each, while an older one serves.
    """

    rules: Rules
    roster: Roster | None
    roster_problem: str | None = None
    policy_problem: str | None = None

    def required_roster(self) -> Roster:
        """Raises `Unavailable`, with the remedy, where there is none."""
        if self.roster is None:
            raise Unavailable(
                f"no roster is loaded: {self.roster_problem or 'none is configured'}. "
                "Point VALIDATORS_ROSTER at a Parquet file of the workers",
                code="roster_missing",
            )
        return self.roster


class BasisSource(Protocol):
    """Has the basis that counts now."""

    @property
    def current(self) -> Basis: ...


@dataclass(frozen=True, slots=True)
class FixedBasis:
    """A source whose basis stays the same, for tests."""

    current: Basis
