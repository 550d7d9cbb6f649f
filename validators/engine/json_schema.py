"""The kind `json_schema`: any JSON, checked against a schema that the caller brings."""

from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NoReturn

import jsonschema_rs
import orjson
from pydantic import JsonValue

from schemas.base import JsonObject
from schemas.verdicts import SchemaContext
from services.errors import InvalidRequest, TooLarge
from validators.engine import codes
from validators.engine.findings import Report, pointer
from validators.engine.policy import Policy
from validators.engine.references import Meetings, UnusableReference, expansion_of
from validators.engine.validator import Checked, RosterNeeded, parse_context

COMPILED_MAX: Final = 128
MEETINGS_MAX: Final = 20_000
"""Beyond this many meetings of a value with a subschema, errors are not told one by one: each may be one."""

WORK_MAX: Final = 1_000_000
"""Values times subschemas beyond which so many meetings are refused: the library cannot be stopped."""

PLACES_MAX: Final = 100
TOLD_MAX: Final = 100
"""Ways and errors that are gone through to put properties without a name back into a pointer."""
MESSAGE_CHARS_MAX: Final = 300


class JsonSchemaValidator:
    """One finding an error, at the place in the artifact where the schema is not met.

    Patterns run on a linear engine, references lead nowhere outside of the schema, and messages do not
    repeat values.
    """

    kind: Final = "json_schema"
    version: Final = "1.1"
    codes: Final = codes.SCHEMA
    slow: Final = True

    def __init__(
        self, policy: Policy, *, schema_bytes_max: int, expansion_max: int, findings_max: int
    ) -> None:
        self._policy = policy
        self._schema_bytes_max = schema_bytes_max
        self._expansion_max = expansion_max
        self._findings_max = findings_max
        self._compiled = lru_cache(maxsize=COMPILED_MAX)(self._compile)

    def artifact_schema(self) -> JsonObject:
        return {}

    def context_schema(self) -> JsonObject:
        return SchemaContext.model_json_schema(by_alias=True)

    def unreadable(self, reason: str) -> Checked:
        report = Report(self._policy.severities)
        report.add("schema.invalid", "", reason)
        return Checked(report.sorted())

    def check(self, artifact: JsonValue, context: JsonObject, roster: RosterNeeded) -> Checked:  # noqa: ARG002 - a kind without a roster
        """Raises `InvalidRequest` for a schema that is none, `TooLarge` for one beyond the limit."""
        schema = orjson.dumps(parse_context(SchemaContext, context).schema_)
        if len(schema) > self._schema_bytes_max:
            raise TooLarge(
                f"`context.schema` has {len(schema)} bytes; at most {self._schema_bytes_max} are accepted",
                code="schema_too_large",
                param="context.schema",
            )
        report = Report(self._policy.severities)
        compiled, meetings, expansion = self._compiled(schema)
        much = expansion * _size(artifact) > WORK_MAX
        if much and meetings.exceed(artifact, MEETINGS_MAX):
            raise InvalidRequest(
                f"`context.schema` amounts to {expansion} subschemas, too many for an artifact of this size",
                code="schema_too_costly",
                param="context.schema",
            )
        # Saying whether an artifact is valid takes a time in proportion to it. Saying where it is not may
        # take one way for each recursive reference at each level.
        if compiled.is_valid(artifact):
            return Checked(report.sorted())
        if not much and meetings.exceed(artifact, MEETINGS_MAX):
            message = "the schema is not met; it has too many branches for this artifact to say where"
            report.add("schema.invalid", "", message)
        else:
            self._report(compiled, artifact, report)
        return Checked(report.sorted())

    def _report(self, compiled: jsonschema_rs.Validator, artifact: JsonValue, report: Report) -> None:
        whole = _Paths(compiled, artifact)
        for number, error in enumerate(compiled.iter_errors(artifact), start=1):
            if number > self._findings_max:
                message = f"there are more than {self._findings_max} errors; the others are not listed"
                report.add("schema.invalid", "", message)
                break
            evidence: JsonObject = {"keyword": error.kind.name, "schema_path": pointer(*error.schema_path)}
            report.add(
                "schema.invalid", whole.path(error), error.message[:MESSAGE_CHARS_MAX], evidence=evidence
            )

    def _compile(self, text: bytes) -> tuple[jsonschema_rs.Validator, Meetings, int]:
        """The validator, what counts its work, and how many subschemas a value may meet."""
        schema = orjson.loads(text)
        try:
            expansion = expansion_of(schema, self._expansion_max)
            if expansion > self._expansion_max:
                raise InvalidRequest(
                    f"`context.schema` amounts to more than {self._expansion_max} subschemas once its "
                    "references are followed; refer to shared parts less often",
                    code="schema_too_costly",
                    param="context.schema",
                )
            compiled = jsonschema_rs.validator_for(
                schema,
                retriever=_retrieve_nothing,
                mask="the value",
                pattern_options=jsonschema_rs.RegexOptions(),
            )
        except (UnusableReference, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
            raise InvalidRequest(
                f"`context.schema` is not a usable JSON Schema: {error.args[0] if error.args else error}"[
                    :500
                ],
                code="schema_unusable",
                param="context.schema",
            ) from None
        return compiled, Meetings(schema), expansion


class _Paths:
    """Pointers of errors, whole: the library's errors leave out properties whose name is empty.

    Its other way of checking names them, without masking values: it is asked for pointers alone, and only
    where the artifact has such a property.
    """

    def __init__(self, compiled: jsonschema_rs.Validator, artifact: JsonValue) -> None:
        self._artifact = artifact
        self._known: dict[tuple[str, str], deque[str]] = {}
        self._told: list[tuple[str, str]] = []
        for found in compiled.evaluate(artifact).errors() if _has_empty_key(artifact) else ():
            path = found["instanceLocation"]
            schema = _without_empty(found["schemaLocation"])
            key = (schema.rpartition("/")[0], _without_empty(path))
            self._known.setdefault(key, deque()).append(path)
            if len(self._told) < TOLD_MAX:
                self._told.append((schema, path))

    def path(self, error: jsonschema_rs.ValidationError) -> str:
        """Errors of one schema at like places come in the same order both ways."""
        given = pointer(*error.instance_path)
        if not self._told:
            return given
        keyword = pointer(*error.schema_path)
        if paths := self._known.get((keyword.rpartition("/")[0], given)):
            return paths.popleft()
        # Of `anyOf` and its like only the branches are named: they are about the same value, or parts of it.
        within = [
            path
            for schema, path in self._told
            if schema.startswith(f"{keyword}/") and f"{_without_empty(path)}/".startswith(f"{given}/")
        ]
        places = _places(self._artifact, [str(part) for part in error.instance_path])
        fitting = [
            place for place in places if all(path == place or path.startswith(f"{place}/") for path in within)
        ]
        return max(fitting, key=len, default=given) if within else given


def _places(artifact: JsonValue, parts: list[str]) -> Iterator[str]:
    """Every place in the artifact that these parts may lead to, properties without a name in between."""
    pending: list[tuple[JsonValue, int, str]] = [(artifact, 0, "")]
    for _ in range(PLACES_MAX):
        if not pending:
            break
        value, at, path = pending.pop()
        if at == len(parts):
            yield path
        if isinstance(value, dict):
            if "" in value:
                pending.append((value[""], at, f"{path}/"))
            if at < len(parts) and parts[at] in value:
                pending.append((value[parts[at]], at + 1, path + pointer(parts[at])))
        elif isinstance(value, list) and at < len(parts) and parts[at] in map(str, range(len(value))):
            pending.append((value[int(parts[at])], at + 1, path + pointer(parts[at])))


def _size(artifact: JsonValue) -> int:
    """Its values, the parts of its lists and objects among them."""
    count, pending = 0, [artifact]
    while pending:
        value = pending.pop()
        count += 1
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return count


def _without_empty(path: str) -> str:
    return "".join(f"/{part}" for part in path.split("/") if part)


def _has_empty_key(artifact: JsonValue) -> bool:
    pending = [artifact]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if "" in value:
                return True
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return False


def _retrieve_nothing(uri: str) -> NoReturn:
    raise ValueError(f"references to other documents are not followed ({uri[:100]})")
