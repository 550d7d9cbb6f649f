"""The work itself: finds the kind, reads the artifact, runs its rules, and draws the verdict."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Final

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from pydantic import JsonValue, TypeAdapter, ValidationError

from schemas.base import SafeJson
from schemas.verdicts import (
    CodeInfo,
    RosterInfo,
    ValidateRequest,
    ValidatorDescription,
    ValidatorInfo,
    ValidatorList,
    Verdict,
)
from services.errors import InvalidRequest, TooLarge, Unavailable
from validators.backends import Roster, RosterSource
from validators.engine.email import EmailValidator
from validators.engine.fill import FillValidator
from validators.engine.findings import verdict_of
from validators.engine.json_schema import JsonSchemaValidator
from validators.engine.policy import BrokenPolicy, Policy
from validators.engine.pool import Threads
from validators.engine.sms import SmsValidator
from validators.engine.validator import Checked, Validator

__all__ = [
    "BrokenPolicy",
    "EmailValidator",
    "Engine",
    "FillValidator",
    "JsonSchemaValidator",
    "Metrics",
    "Policy",
    "SmsValidator",
    "Threads",
    "Validator",
]

INLINE_BYTES_MAX: Final = 16 * 1024
"""Up to here a check takes less time than handing it to a thread is worth."""

SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5)

_safe_json: Final = TypeAdapter[JsonValue](SafeJson)


class Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.verdicts = Counter(
            "validators_verdicts", "Verdicts given.", ["kind", "verdict"], registry=registry
        )
        self.findings = Counter("validators_findings", "Findings reported.", ["code"], registry=registry)
        self.seconds = Histogram(
            "validators_check_seconds", "Time of one check.", ["kind"], registry=registry, buckets=SECONDS
        )
        self.roster_rows = Gauge("validators_roster_rows", "Workers on the roster in use.", registry=registry)
        self.roster_refused = Gauge(
            "validators_roster_refused", "1 while the roster file cannot be used.", registry=registry
        )

    def roster(self, source: RosterSource) -> None:
        self.roster_rows.set(source.current.info.rows if source.current else 0)
        self.roster_refused.set(source.problem is not None)

    def verdict(self, verdict: Verdict) -> None:
        self.verdicts.labels(verdict.kind, verdict.verdict).inc()
        self.seconds.labels(verdict.kind).observe(verdict.elapsed_ms / 1000)
        for finding in verdict.findings:
            self.findings.labels(finding.code).inc()


class Engine:
    """Gives verdicts. Each one looks at a single snapshot of the roster, from its first rule to its last."""

    def __init__(
        self,
        validators: Sequence[Validator],
        source: RosterSource,
        threads: Threads,
        metrics: Metrics,
        *,
        policy: Policy,
        artifact_bytes_max: int,
    ) -> None:
        self._validators = {validator.kind: validator for validator in validators}
        self._source = source
        self._threads = threads
        self._metrics = metrics
        self._policy = policy
        self._artifact_bytes_max = artifact_bytes_max

    async def validate(self, request: ValidateRequest) -> Verdict:
        """The verdict on one artifact.

        Raises `InvalidRequest` for an unknown kind or a context that cannot be understood, `TooLarge` for an
        artifact beyond the limit, `Unavailable` where the rules need a roster and none is there, and
        `Overloaded` when too many long checks are waiting.
        """
        validator = self._validators.get(request.kind)
        if validator is None:
            kinds = ", ".join(f"`{kind}`" for kind in self._validators)
            raise InvalidRequest(
                f"`kind` is not known here; it may be {kinds}", code="unknown_kind", param="kind"
            )
        size = self._size(request.artifact)
        work = partial(self._verdict, validator, request)
        long = validator.slow or size > INLINE_BYTES_MAX
        verdict = await self._threads.run(work) if long else work()
        self._metrics.verdict(verdict)
        return verdict

    def _size(self, artifact: JsonValue) -> int:
        size = len(artifact.encode()) if isinstance(artifact, str) else len(orjson.dumps(artifact))
        if size > self._artifact_bytes_max:
            raise TooLarge(
                f"`artifact` has {size} bytes; at most {self._artifact_bytes_max} are accepted",
                code="artifact_too_large",
                param="artifact",
            )
        return size

    def _verdict(self, validator: Validator, request: ValidateRequest) -> Verdict:
        started = time.perf_counter()
        checked = self._check(validator, request)
        verdict = verdict_of(checked.findings, checked.parts)
        return Verdict(
            ok=verdict == "accepted",
            verdict=verdict,
            findings=checked.findings,
            kind=validator.kind,
            validator=ValidatorInfo(
                name=f"stillhouse.{validator.kind}",
                version=validator.version,
                policy_version=self._policy.version,
            ),
            roster=_named(checked),
            elapsed_ms=round((time.perf_counter() - started) * 1000, 3),
        )

    def _check(self, validator: Validator, request: ValidateRequest) -> Checked:
        artifact = request.artifact
        if isinstance(artifact, str):
            try:
                artifact = _safe_json.validate_python(orjson.loads(artifact))
            except orjson.JSONDecodeError as error:
                return validator.unreadable(f"the artifact is not JSON: {error.msg} at character {error.pos}")
            except ValidationError as error:
                return validator.unreadable(
                    f"the artifact is not JSON that can be kept: {error.errors()[0]['msg']}"
                )
        return validator.check(artifact, request.context, self._roster)

    def _roster(self) -> Roster:
        roster = self._source.current
        if roster is None:
            raise Unavailable(
                f"no roster is loaded: {self._source.problem or 'none is configured'}. "
                "Point VALIDATORS_ROSTER at a Parquet file of the workers",
                code="roster_missing",
            )
        return roster

    def describe(self) -> ValidatorList:
        """All kinds, their schemas, and each code with its weight and meaning."""
        severities = self._policy.severities
        return ValidatorList(
            validators=[
                ValidatorDescription(
                    kind=validator.kind,
                    version=validator.version,
                    artifact_schema=validator.artifact_schema(),
                    context_schema=validator.context_schema(),
                    codes=[
                        CodeInfo(code=code, severity=severities[code], meaning=meaning)
                        for code, meaning in validator.codes.items()
                    ],
                )
                for validator in self._validators.values()
            ],
            policy_version=self._policy.version,
            roster=self._source.current.info if self._source.current else None,
        )


def _named(checked: Checked) -> RosterInfo | None:
    """The roster that was looked at, under the date that the context gives it, if it gives one."""
    if checked.roster is None:
        return None
    info = checked.roster.info
    return info.model_copy(update={"as_of": checked.as_of}) if checked.as_of is not None else info
