"""Validators of third parties: found as entry points, checked at start, kept from doing harm afterwards.

A package offers one with

    [project.entry-points."stillhouse.validators"]
    timesheet = "acme_timesheets:TimesheetValidator"

where the class is made without arguments and is what `ThirdParty` says. It need not import anything of ours.
"""

import re
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from itertools import islice
from typing import Annotated, Any, Final, Protocol

import jsonschema_rs
import structlog
from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from schemas.base import JsonObject, Model
from schemas.verdicts import RosterInfo, Severity
from services.errors import InvalidRequest, PlatformError
from validators.backends import Roster, WorkerFacts
from validators.engine.codes import SCHEMA
from validators.engine.findings import Report, pointer
from validators.engine.policy import Policy
from validators.engine.validator import Checked, RosterNeeded

log = structlog.get_logger(__name__)

GROUP: Final = "stillhouse.validators"
FINDINGS_MAX: Final = 1000
KIND: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")


class UnusableValidator(PlatformError):
    """An installed validator cannot be used; the message names it. The daemon does not start."""

    code = "validator_unusable"


class ValidatorFailed(PlatformError):
    """A third party's rules broke on a request. No verdict is given: silence would read as approval."""

    code = "validator_failed"


class ThirdParty(Protocol):
    """What a class behind the entry point has.

    `codes` maps each code, which begins with the kind and a dot, to its severity and its meaning. An artifact
    that does not fit `artifact_schema` is `schema.invalid` and is not handed to `check`; a context that does
    not fit `context_schema` is a malformed request.
    """

    kind: str
    version: str
    codes: Mapping[str, tuple[Severity, str]]
    artifact_schema: JsonObject
    context_schema: JsonObject

    def check(
        self, artifact: Any, context: dict[str, Any], roster: "LazyRoster"
    ) -> Iterable[Mapping[str, Any]]:
        """The findings: mappings with `code`, `path` and `message`, and as one likes `severity`, `span`,
        `fix` and `evidence`, as in a verdict. Pure: no clock, no network, the same for the same input.
        """
        ...


class LazyRoster:
    """The roster as a third party sees it. Looking at it puts it into the verdict."""

    def __init__(self, roster: RosterNeeded) -> None:
        self._roster = roster
        self.used: Roster | None = None

    @property
    def info(self) -> RosterInfo:
        return self._snapshot().info

    def find(self, worker_id: str) -> WorkerFacts | None:
        """The worker with exactly this id."""
        return self._snapshot().find(worker_id)

    def _snapshot(self) -> Roster:
        if self.used is None:
            self.used = self._roster()
        return self.used


class _Declared(Model):
    """What a class says of itself."""

    kind: str
    version: Annotated[str, Field(pattern=r"^[0-9A-Za-z._+-]{1,32}$")]
    codes: Annotated[dict[str, tuple[Severity, str]], Field(min_length=1, max_length=200)]
    artifact_schema: JsonObject
    context_schema: JsonObject


class _Told(Model):
    """A finding as a third party tells it."""

    code: str
    path: Annotated[str, Field(pattern=r"^(/([^~/]|~[01])*)*$")]
    message: Annotated[str, Field(min_length=1, max_length=2000)]
    severity: Severity | None = None
    span: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] | None = None
    fix: JsonObject | None = None
    evidence: JsonObject | None = None


_told: Final = TypeAdapter(_Told)


@dataclass(frozen=True, slots=True)
class Plugin:
    """A third party's validator, checked. `origin` names the package and the entry point for people."""

    declared: _Declared
    rules: ThirdParty
    package: str
    origin: str

    @property
    def severities(self) -> dict[str, Severity]:
        """How much its codes weigh where the policy does not say otherwise."""
        return {code: severity for code, (severity, _) in self.declared.codes.items()}


def installed(taken: Iterable[str]) -> list[Plugin]:
    """The validators that other packages offer, by kind. Raises `UnusableValidator` naming the first bad one.

    `taken` are the kinds that are ours already.
    """
    owners = dict.fromkeys(taken, "stillhouse")
    plugins = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        plugin = _load(entry)
        kind = plugin.declared.kind
        if (owner := owners.get(kind)) is not None:
            raise UnusableValidator(f"{plugin.origin} offers the kind `{kind}`, which {owner} has already")
        _check_declared(plugin.declared, plugin.origin)
        owners[kind] = plugin.origin
        plugins.append(plugin)
        log.info("validator found", kind=kind, version=plugin.declared.version, package=plugin.package)
    return sorted(plugins, key=lambda plugin: plugin.declared.kind)


def _load(entry: EntryPoint) -> Plugin:
    package = entry.dist.name if entry.dist is not None else "an unnamed package"
    origin = f"the validator `{entry.name}` of {package}"
    try:
        rules: ThirdParty = entry.load()()
        declared = _Declared(
            kind=rules.kind,
            version=rules.version,
            codes=dict(rules.codes),
            artifact_schema=rules.artifact_schema,
            context_schema=rules.context_schema,
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UnusableValidator(f"{origin} cannot be used: `{where}`: {first['msg']}") from error
    except Exception as error:  # theirs may raise anything
        raise UnusableValidator(
            f"{origin} cannot be loaded: {type(error).__name__}: {str(error)[:200]}"
        ) from error
    if not callable(getattr(rules, "check", None)):
        raise UnusableValidator(f"{origin} cannot be used: it has no `check`")
    return Plugin(declared, rules, package, origin)


def _check_declared(declared: _Declared, origin: str) -> None:
    if KIND.fullmatch(declared.kind) is None:
        raise UnusableValidator(
            f"{origin} cannot be used: `kind` is {declared.kind!r}; lower-case words with _"
        )
    own = re.compile(re.escape(declared.kind) + r"\.[a-z0-9_.]{1,64}")
    for code in declared.codes:
        if own.fullmatch(code) is None:
            raise UnusableValidator(
                f"{origin} cannot be used: its code {code!r} does not begin with `{declared.kind}.`"
            )
    for name in ("artifact_schema", "context_schema"):
        try:
            _compiled(getattr(declared, name))
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
            raise UnusableValidator(
                f"{origin} cannot be used: `{name}` is no JSON Schema: {error}"
            ) from error


def _compiled(schema: JsonObject) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(schema, mask="the value", pattern_options=jsonschema_rs.RegexOptions())


class PluggedValidator:
    """A third party's validator as one of ours. It runs in a thread, and what it raises is no verdict."""

    slow: Final = True

    def __init__(self, plugin: Plugin, policy: Policy) -> None:
        declared = plugin.declared
        self.kind: Final = declared.kind
        self.version: Final = declared.version
        self.name: Final = f"{plugin.package}.{declared.kind}"
        self.codes: Final = SCHEMA | {code: meaning for code, (_, meaning) in declared.codes.items()}
        self._severities = policy.severities
        self._plugin = plugin
        self._artifact = _compiled(declared.artifact_schema)
        self._context = _compiled(declared.context_schema)

    def artifact_schema(self) -> JsonObject:
        return self._plugin.declared.artifact_schema

    def context_schema(self) -> JsonObject:
        return self._plugin.declared.context_schema

    def unreadable(self, reason: str) -> Checked:
        report = Report(self._severities)
        report.add("schema.invalid", "", reason)
        return Checked(report.sorted())

    def check(self, artifact: JsonValue, context: JsonObject, roster: RosterNeeded) -> Checked:
        """Raises `InvalidRequest` for a bad context, `ValidatorFailed` where the rules break."""
        for wrong in self._context.iter_errors(context):
            param = ".".join(["context", *map(str, wrong.instance_path)])
            raise InvalidRequest(f"`{param}`: {wrong.message}", param=param)
        report = Report(self._severities)
        errors = list(islice(self._artifact.iter_errors(artifact), FINDINGS_MAX))
        for error in errors:
            report.add("schema.invalid", pointer(*error.instance_path), error.message)
        looked_at = LazyRoster(roster)
        if not errors:
            for told in self._told(artifact, context, looked_at):
                report.add(
                    told.code,
                    told.path,
                    told.message,
                    severity=told.severity,
                    span=told.span,
                    fix=told.fix,
                    evidence=told.evidence,
                )
        return Checked(report.sorted(), roster=looked_at.used)

    def _told(self, artifact: JsonValue, context: JsonObject, roster: LazyRoster) -> Sequence[_Told]:
        try:
            found = self._plugin.rules.check(artifact, context, roster)
            findings = [_told.validate_python(dict(each)) for each in islice(found, FINDINGS_MAX + 1)]
        except PlatformError:  # of ours: there is no roster
            raise
        except (Exception, SystemExit) as error:  # theirs may raise anything, and must not end the daemon
            place = traceback.extract_tb(error.__traceback__)[-1]  # its message may hold what it was checking
            log.error(  # noqa: TRY400 - for the same reason
                "validator failed",
                kind=self.kind,
                package=self._plugin.package,
                error=type(error).__name__,
                place=f"{place.filename}:{place.lineno}",
            )
            raise self._failed(f"it raised {type(error).__name__}") from error
        if len(findings) > FINDINGS_MAX:
            raise self._failed(f"it found more than {FINDINGS_MAX} things")
        if unknown := sorted({told.code for told in findings} - self.codes.keys()):
            raise self._failed(f"it found {unknown[0][:80]!r}, which is none of its codes")
        return findings

    def _failed(self, reason: str) -> ValidatorFailed:
        return ValidatorFailed(f"{self._plugin.origin} gave no verdict: {reason}; its makers can mend it")
