"""What a JSON Schema may object to."""

from collections.abc import Callable
from typing import Any

from tests.mutation.agency import Agency
from tests.mutation.cases import Case, Json
from tests.mutation.operator import Apply, Catalogue, Unfit

DEFECTS = Catalogue()

Spot = tuple[Any, Any, Json, str]
"""A container, the key in it, the schema of what lies there, and the pointer to it."""


def _spots(value: Any, schema: Json, pointer: str = "") -> list[Spot]:
    found: list[Spot] = []
    if "properties" in schema:
        for key, inner in schema["properties"].items():
            if not isinstance(value, dict) or key not in value:
                continue
            here = f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"
            found += [(value, key, inner, here), *_spots(value[key], inner, here)]
    elif schema.get("type") == "array" and "minItems" not in schema:
        found += [
            spot
            for at, item in enumerate(value)
            for spot in ((value, at, schema["items"], f"{pointer}/{at}"),)
        ]
    return found


def _broken(choose: Callable[[Json], bool], value: Any) -> Apply:
    def apply(agency: Agency, case: Case) -> None:
        spots = [spot for spot in _spots(case.artifact, case.context["schema"]) if choose(spot[2])]
        spots = [spot for spot in spots if not any(_related(spot[3], taken) for taken in case.touched)]
        if not spots:
            raise Unfit
        container, key, _, pointer = agency.rng.choice(spots)
        case.touched.add(pointer)
        container[key] = value
        case.errors.append(("schema.invalid", pointer))

    return apply


def _related(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


for _variant, _fits, _bad in (
    ("type", lambda schema: schema.get("type") in ("integer", "number", "object"), "x"),
    ("type of text", lambda schema: schema.get("type") == "string", 5),
    ("types", lambda schema: isinstance(schema.get("type"), list), 5),
    ("minimum", lambda schema: "minimum" in schema, -6),
    ("maximum", lambda schema: "maximum" in schema, 6),
    ("limit excluded", lambda schema: "exclusiveMaximum" in schema, 1),
    ("pattern", lambda schema: "pattern" in schema, "x" * 2_000 + "!"),
    ("length", lambda schema: "maxLength" in schema, "€" * 4),
    ("enum", lambda schema: "enum" in schema, "3"),
    ("const", lambda schema: "const" in schema, {"k": 2}),
    ("too few", lambda schema: "minItems" in schema, []),
):
    DEFECTS.add("json_schema", "schema.invalid", _variant, _broken(_fits, _bad))


def _object(agency: Agency, case: Case) -> tuple[Json, Json, str]:
    objects = [(case.artifact, case.context["schema"], "")]
    objects += [
        (container[key], schema, pointer)
        for container, key, schema, pointer in _spots(case.artifact, case.context["schema"])
        if "properties" in schema
    ]
    free = [one for one in objects if not any(_related(one[2], taken) for taken in case.touched)]
    if not free:
        raise Unfit
    chosen = agency.rng.choice(free)
    case.touched.add(chosen[2])
    return chosen


def _lacking(agency: Agency, case: Case) -> None:
    value, _, pointer = _object(agency, case)
    value.pop(agency.rng.choice(list(value)))
    case.errors.append(("schema.invalid", pointer))


def _surplus(agency: Agency, case: Case) -> None:
    value, _, pointer = _object(agency, case)
    value["surplus"] = None
    case.errors.append(("schema.invalid", pointer))


DEFECTS.add("json_schema", "schema.invalid", "a key less", _lacking)
DEFECTS.add("json_schema", "schema.invalid", "a key more", _surplus)


def _no_json(agency: Agency, case: Case) -> None:
    case.artifact = agency.rng.choice(("", "{", "Sure! {}", '{"a": NaN}', "{'a': 1}"))
    case.errors.append(("schema.invalid", ""))


DEFECTS.add("json_schema", "schema.invalid", "no JSON", _no_json, alone=True)
