"""The kind `json_schema`: any JSON, checked against a schema that the caller brings."""

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
from validators.engine.validator import Checked, RosterNeeded, parse_context

COMPILED_MAX: Final = 128
LITERALS: Final = frozenset({"const", "enum", "default", "examples"})
"""Keywords whose value is data, not a schema."""


class JsonSchemaValidator:
    """One finding an error, at the place in the artifact where the schema is not met.

    Patterns run on a linear engine, references lead nowhere outside of the schema, and messages do not
    repeat values.
    """

    kind: Final = "json_schema"
    version: Final = "1.0"
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
        for number, error in enumerate(self._compiled(schema).iter_errors(artifact), start=1):
            if number > self._findings_max:
                message = f"there are more than {self._findings_max} errors; the others are not listed"
                report.add("schema.invalid", "", message)
                break
            evidence: JsonObject = {"keyword": error.kind.name, "schema_path": pointer(*error.schema_path)}
            report.add("schema.invalid", pointer(*error.instance_path), error.message, evidence=evidence)
        return Checked(report.sorted())

    def _compile(self, text: bytes) -> jsonschema_rs.Validator:
        schema = orjson.loads(text)
        if expansion(schema, self._expansion_max) > self._expansion_max:
            raise InvalidRequest(
                f"`context.schema` amounts to more than {self._expansion_max} subschemas once its references "
                "are followed; refer to shared parts less often",
                code="schema_too_costly",
                param="context.schema",
            )
        try:
            return jsonschema_rs.validator_for(
                schema,
                retriever=_retrieve_nothing,
                mask="the value",
                pattern_options=jsonschema_rs.RegexOptions(),
            )
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
            raise InvalidRequest(
                f"`context.schema` is not a usable JSON Schema: {error.args[0] if error.args else error}"[
                    :500
                ],
                code="schema_unusable",
                param="context.schema",
            ) from None


def _retrieve_nothing(uri: str) -> NoReturn:
    raise ValueError(f"references to other documents are not followed ({uri[:100]})")


def expansion(schema: JsonValue, limit: int) -> int:
    """How many subschemas one value may meet: references counted as often as they are made.

    A schema that refers to itself counts once where it does so. Counting stops beyond `limit`.
    """
    known: dict[str, int] = {}

    def cost_of(reference: str) -> int:
        if reference not in known:
            known[reference] = 1  # stands while its own references are followed
            target = _resolve(schema, reference)
            known[reference] = min(limit + 1, total(target)) if target is not None else 1
        return known[reference]

    def total(root: JsonValue) -> int:
        cost = 0
        for node in _nodes(root):
            cost += 1
            if isinstance(reference := node.get("$ref"), str):
                cost += cost_of(reference)
            if cost > limit:
                break
        return cost

    return total(schema)


def _nodes(root: JsonValue) -> Iterator[JsonObject]:
    """Every object that can be a subschema. Definitions are left out: they count where they are used."""
    pending = [root]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            yield node
            pending.extend(
                value
                for key, value in node.items()
                if key not in LITERALS and key not in ("$defs", "definitions")
            )
        elif isinstance(node, list):
            pending.extend(node)


def _resolve(schema: JsonValue, reference: str) -> JsonValue | None:
    if not reference.startswith("#"):
        return None
    if reference[1:2] not in ("", "/"):
        return next((node for node in _anchored(schema) if node.get("$anchor") == reference[1:]), None)
    here: JsonValue = schema
    for part in reference[1:].split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(here, dict) and key in here:
            here = here[key]
        elif isinstance(here, list) and key.isdecimal() and int(key) < len(here):
            here = here[int(key)]
        else:
            return None
    return here


def _anchored(root: JsonValue) -> Iterator[JsonObject]:
    pending = [root]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            yield node
        pending.extend(node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
