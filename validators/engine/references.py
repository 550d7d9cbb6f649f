"""What a JSON Schema can cost, told before an artifact is checked against it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from pydantic import JsonValue

from schemas.base import JsonObject

LITERALS: Final = frozenset({"const", "enum", "default", "examples"})
"""Keywords whose value is data, not a schema."""

DEFINITIONS: Final = frozenset({"$defs", "definitions"})
"""Kept schemas, which count where they are referred to."""

MAPS: Final = frozenset({"properties", "patternProperties", "dependentSchemas", "dependencies"})
"""Keywords whose value has schemas under names of the author's choice."""

IN_PLACE: Final = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else"})
BRANCHING: Final = frozenset({"anyOf", "oneOf"})
BRANCH_COST: Final = 10
"""Each branch not met is an error within the error, which the library makes as well."""
IN_PLACE_MAPS: Final = frozenset({"dependentSchemas", "dependencies"})
"""Keywords whose schemas are for the same value, not for a part of it."""

LISTED: Final = frozenset({"enum", "required"})
"""Keywords whose lists are gone through, or told one by one."""
OBJECT_WIDE: Final = ("additionalProperties", "unevaluatedProperties", "propertyNames")
ARRAY_WIDE: Final = ("items", "additionalItems", "unevaluatedItems", "contains")
DOWNWARD: Final = frozenset({*OBJECT_WIDE, *ARRAY_WIDE, "properties", "patternProperties", "prefixItems"})
"""Keywords whose schemas are for parts of a value."""

ROOT: Final = "#"
REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")


class UnusableReference(ValueError):
    """A reference that cannot be followed; the message says which."""


def expansion_of(schema: JsonValue, limit: int) -> int:
    """Subschemas that one value may meet, a reference to itself counted once.

    Counting stops beyond `limit`. Raises `UnusableReference`.
    """
    graph = _graph(schema)
    _check_progress(graph)
    sizes: dict[str, int] = {}
    pending = dict(graph)
    # Parts that refer to nothing open are sized first; what is left in the end goes round in loops.
    while done := [name for name, part in pending.items() if all(ref in sizes for ref in part.references)]:
        for name in done:
            part = pending.pop(name)
            sizes[name] = min(limit + 1, part.nodes + sum(sizes[ref] for ref in part.references))
    looped = sum(part.nodes + sum(sizes.get(ref, 0) for ref in part.references) for part in pending.values())
    return min(limit + 1, max(sizes.get(ROOT, 0), looped))


Met = tuple[JsonValue, list[JsonValue]]
"""A value, and the subschemas that it meets."""


class Meetings:
    """Counts how often a value of an artifact meets a subschema: what telling all errors may cost."""

    def __init__(self, schema: JsonValue) -> None:
        self._schema = schema
        self._anchors = _anchors(schema)
        self._resolved: dict[str, JsonValue] = {}

    def exceed(self, artifact: JsonValue, limit: int) -> bool:
        """Whether there are more than `limit`; no further is counted."""
        left = limit
        pending: list[Met] = [(artifact, [self._schema])]
        while pending:
            value, schemas = pending.pop()
            met, cost = self._met(schemas, left)
            downward = [schema for schema in met if not DOWNWARD.isdisjoint(schema)]
            left -= cost + len(downward) * (len(value) if isinstance(value, dict | list) else 0)
            if left < 0:
                return True
            if isinstance(value, dict):
                pending.extend(_of_object(value, downward))
            elif isinstance(value, list):
                pending.extend(_of_array(value, downward))
        return False

    def _met(self, schemas: list[JsonValue], left: int) -> tuple[list[JsonObject], int]:
        """The subschemas that one value meets, and what they cost; no more than `left` are looked at."""
        met: list[JsonObject] = []
        cost = 0
        pending = list(schemas)
        while pending and cost <= left:
            cost += 1
            if not isinstance(schema := pending.pop(), dict):
                continue
            met.append(schema)
            for key, item in schema.items():
                if key in IN_PLACE:
                    branches = item if isinstance(item, list) else [item]
                    pending.extend(branches)
                    cost += BRANCH_COST * len(branches) if key in BRANCHING else 0
                elif key in IN_PLACE_MAPS and isinstance(item, dict):
                    pending.extend(item.values())
                elif key in REFERENCES and isinstance(item, str):
                    pending.append(self._resolve(item))
                elif key in LISTED and isinstance(item, list):
                    cost += len(item)
        return met, cost

    def _resolve(self, name: str) -> JsonValue:
        if name not in self._resolved:
            self._resolved[name] = _resolve(self._schema, self._anchors, name)
        return self._resolved[name]


def _of_object(value: JsonObject, schemas: list[JsonObject]) -> Iterator[Met]:
    wide = [schema[name] for schema in schemas for name in OBJECT_WIDE if name in schema]
    for patterns in _maps(schemas, "patternProperties"):
        wide.extend(patterns.values())
    named = list(_maps(schemas, "properties"))
    for key, item in value.items():
        if below := [*wide, *(properties[key] for properties in named if key in properties)]:
            yield item, below


def _of_array(value: list[JsonValue], schemas: list[JsonObject]) -> Iterator[Met]:
    listed = [schema[name] for schema in schemas for name in ("prefixItems", "items") if name in schema]
    tuples = [each for each in listed if isinstance(each, list)]
    wide = [
        schema[name]
        for schema in schemas
        for name in ARRAY_WIDE
        if name in schema and not isinstance(schema[name], list)
    ]
    for at, item in enumerate(value):
        if below := [*wide, *(each[at] for each in tuples if at < len(each))]:
            yield item, below


def _maps(schemas: list[JsonObject], name: str) -> Iterator[JsonObject]:
    return (found for schema in schemas if isinstance(found := schema.get(name), dict))


@dataclass(frozen=True, slots=True)
class _Part:
    """A schema that is referred to, or the root: its subschemas, and what they refer to, repeats included."""

    nodes: int
    references: list[str]
    in_place: list[str]


def _graph(schema: JsonValue) -> dict[str, _Part]:
    anchors = _anchors(schema)
    graph: dict[str, _Part] = {}
    pending = [ROOT]
    while pending:
        name = pending.pop()
        if name in graph:
            continue
        root = _resolve(schema, anchors, name)
        nodes = list(_subschemas(root))
        references = _references(nodes)
        graph[name] = _Part(len(nodes), references, _references(_in_place(root)))
        pending.extend(references)
    return graph


def _references(nodes: Iterable[JsonObject]) -> list[str]:
    return [str(node[key]) for node in nodes for key in REFERENCES if isinstance(node.get(key), str)]


def _check_progress(graph: dict[str, _Part]) -> None:
    """References that come back to themselves on one and the same value would be followed for ever."""
    pending = dict(graph)
    while done := [
        name for name, part in pending.items() if not any(ref in pending for ref in part.in_place)
    ]:
        for name in done:
            del pending[name]
    if pending:
        raise UnusableReference(
            f"{next(iter(pending))[:100]!r} comes back to itself without going down into the artifact"
        )


def _in_place(root: JsonValue) -> Iterator[JsonObject]:
    """The subschemas of `root` that are for the same value as itself, and `root`."""
    pending = [root]
    while pending:
        value = pending.pop()
        if not isinstance(value, dict):
            continue
        yield value
        for key, item in value.items():
            if key in IN_PLACE:
                pending.extend(item if isinstance(item, list) else (item,))
            elif key in IN_PLACE_MAPS and isinstance(item, dict):
                pending.extend(item.values())


def _subschemas(root: JsonValue) -> Iterator[JsonObject]:
    pending: list[tuple[JsonValue, bool]] = [(root, False)]
    while pending:
        value, named = pending.pop()
        if isinstance(value, list):
            pending.extend((item, False) for item in value)
        elif isinstance(value, dict) and named:
            pending.extend((item, False) for item in value.values())
        elif isinstance(value, dict):
            yield value
            for key, item in value.items():
                if key not in LITERALS and key not in DEFINITIONS:
                    pending.append((item, key in MAPS))


def _anchors(schema: JsonValue) -> dict[str, JsonValue]:
    """Schemas by anchor. An `$id` below the root would change what `#` means, so it is refused."""
    anchors: dict[str, JsonValue] = {}
    pending: list[JsonValue] = [schema]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if value is not schema and isinstance(value.get("$id"), str):
                raise UnusableReference("an `$id` below the root is not supported; refer by `#/$defs/...`")
            for key in ("$anchor", "$dynamicAnchor"):
                if isinstance(anchor := value.get(key), str):
                    anchors.setdefault(anchor, value)
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return anchors


def _resolve(schema: JsonValue, anchors: dict[str, JsonValue], reference: str) -> JsonValue:
    if not reference.startswith("#"):
        raise UnusableReference(f"{reference[:100]!r} leads out of the schema; refer by `#/$defs/...`")
    fragment = unquote(reference[1:])
    here = schema
    if fragment and not fragment.startswith("/"):
        here, fragment = anchors.get(fragment), ""
        if here is None:
            raise UnusableReference(f"{reference[:100]!r} is no anchor of the schema")
    for part in fragment.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(here, dict) and key in here:
            here = here[key]
        elif isinstance(here, list) and key.isdecimal() and int(key) < len(here):
            here = here[int(key)]
        else:
            raise UnusableReference(f"{reference[:100]!r} points at nothing in the schema")
    return here
