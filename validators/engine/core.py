"""The work itself: finds the kind, reads the artifact, runs its rules, and draws the verdict."""

import time
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import orjson
from pydantic import JsonValue, TypeAdapter, ValidationError

from schemas.base import JsonObject, SafeJson
from schemas.verdicts import CodeInfo, RosterInfo, ValidatorDescription, ValidatorList, VerdictName
from services.errors import TooLarge
from services.faults import reason_of
from validators.engine.basis import Basis, BasisSource, Rules
from validators.engine.findings import Found, verdict_of
from validators.engine.metrics import Metrics
from validators.engine.pool import Threads, Turns
from validators.engine.validator import Checked, Validator

INLINE_BYTES_MAX: Final = 4 * 1024
"""Up to here a check takes less time than handing it to a thread is worth."""

_safe_json: Final = TypeAdapter[JsonValue](SafeJson)


class Asked(Protocol):
    """What is to be checked: a `ValidateRequest`, or as much of one as matters here."""

    @property
    def kind(self) -> str: ...

    @property
    def artifact(self) -> JsonValue: ...

    @property
    def context(self) -> JsonObject: ...


@dataclass(slots=True)
class Judgement:
    """A `schemas.verdicts.Verdict`, of which `to_json` gives the bytes."""

    verdict: VerdictName
    findings: list[Found]
    kind: str
    info: dict[str, JsonValue]
    roster: RosterInfo | None
    elapsed_ms: float

    def to_json(self) -> bytes:
        fields: dict[str, object] = {
            "ok": self.verdict == "accepted",
            "verdict": self.verdict,
            "findings": [finding.to_json() for finding in self.findings],
            "kind": self.kind,
            "validator": self.info,
        }
        if (roster := self.roster) is not None:
            fields["roster"] = {"sha256": roster.sha256, "as_of": roster.as_of, "rows": roster.rows}
        fields["elapsed_ms"] = self.elapsed_ms
        return orjson.dumps(fields)


class Engine:
    """Gives verdicts. Each one rests on a single basis, from its first rule to its last."""

    def __init__(
        self,
        source: BasisSource,
        threads: Threads,
        turns: Turns,
        metrics: Metrics,
        *,
        artifact_bytes_max: int,
    ) -> None:
        self.turns = turns
        self._source = source
        self._threads = threads
        self._metrics = metrics
        self._artifact_bytes_max = artifact_bytes_max

    async def validate(self, asked: Asked) -> Judgement:
        """The verdict on one artifact.

        Raises `InvalidRequest` for an unknown kind or a context that cannot be understood, `TooLarge` for an
        artifact beyond the limit, `Unavailable` where the rules need a roster and none is there,
        `ValidatorFailed` where a third party's rules break, and `Overloaded` when too many long checks are
        waiting.
        """
        basis = self._source.current
        validator = basis.rules.validator(asked.kind)
        long = self._is_long(validator, asked.artifact)
        work = partial(_judge, basis, validator, asked)
        judgement = await self._threads.run(work) if long else work()
        self._count(judgement)
        return judgement

    def validate_at_once(self, asked: Asked) -> Judgement | None:
        """The verdict, where it takes too little time to matter to others; None where it may take more.

        Raises what `validate` does.
        """
        basis = self._source.current
        validator = basis.rules.validator(asked.kind)
        if self._is_long(validator, asked.artifact):
            return None
        judgement = _judge(basis, validator, asked)
        self._count(judgement)
        return judgement

    def _is_long(self, validator: Validator, artifact: JsonValue) -> bool:
        size = len(artifact.encode()) if isinstance(artifact, str) else len(orjson.dumps(artifact))
        if size > self._artifact_bytes_max:
            raise TooLarge(
                f"`artifact` has {size} bytes; at most {self._artifact_bytes_max} are accepted",
                code="artifact_too_large",
                param="artifact",
            )
        return validator.slow or size > INLINE_BYTES_MAX

    def _count(self, judgement: Judgement) -> None:
        codes = [finding.code for finding in judgement.findings]
        self._metrics.verdict(judgement.kind, judgement.verdict, codes, judgement.elapsed_ms / 1000)

    def describe(self) -> ValidatorList:
        """All kinds, their schemas, and each code with its weight and meaning."""
        basis = self._source.current
        return ValidatorList(
            validators=[_described(validator, basis.rules) for validator in basis.rules.validators.values()],
            policy_version=basis.rules.policy.version,
            roster=basis.roster.info if basis.roster else None,
        )


def _judge(basis: Basis, validator: Validator, asked: Asked) -> Judgement:
    started = time.perf_counter()
    checked = _check(basis, validator, asked)
    verdict = verdict_of(checked.findings, checked.parts)
    elapsed_ms = round((time.perf_counter() - started) * 1000, 3)
    info = basis.rules.infos[validator.kind]
    return Judgement(verdict, checked.findings, validator.kind, info, _named(checked), elapsed_ms)


def _check(basis: Basis, validator: Validator, asked: Asked) -> Checked:
    artifact = asked.artifact
    if isinstance(artifact, str):
        try:
            artifact = _safe_json.validate_python(orjson.loads(artifact))
        except orjson.JSONDecodeError as error:
            return validator.unreadable(f"the artifact is not JSON: {error.msg} at character {error.pos}")
        except ValidationError as error:
            return validator.unreadable(
                f"the artifact is not JSON that can be kept: {reason_of(error.errors()[0])}"
            )
    return validator.check(artifact, asked.context, basis.required_roster)


def _named(checked: Checked) -> RosterInfo | None:
    """The roster that was looked at, under the date that the context gives it, if it gives one."""
    if checked.roster is None:
        return None
    info = checked.roster.info
    return info.model_copy(update={"as_of": checked.as_of}) if checked.as_of is not None else info


def _described(validator: Validator, rules: Rules) -> ValidatorDescription:
    return ValidatorDescription(
        kind=validator.kind,
        version=validator.version,
        artifact_schema=validator.artifact_schema(),
        context_schema=validator.context_schema(),
        codes=[
            CodeInfo(code=code, severity=rules.policy.severities[code], meaning=meaning)
            for code, meaning in validator.codes.items()
        ],
    )
