"""Says of ordinary records that their model takes them, at a third of the cost of making the model.

The answer is "certainly" or "perhaps": whatever is out of the ordinary is left to the model, errors included.
What is looked for is read off the model's own fields; one of a type that is new here is left to the model.
"""

from collections.abc import Callable
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, StrictBool
from pydantic_core import CoreSchema, SchemaValidator
from pydantic_core import core_schema as core

from schemas.base import SAFE_INTEGER_MAX, JsonObject, Measure, RunId, SafeJson, Tally, Timestamp
from schemas.canonical import FIXED_MIN
from schemas.records import Record

RECORD_RULES: Final = frozenset({"_read_version"})
"""Rules that models add to their fields, and that are known here."""


@lru_cache(maxsize=16)
def certainly(kind: type[Record]) -> Callable[[Any], bool]:
    """A function that tells whether parsed JSON is a record of this kind, in today's version.

    Where it does, every number in it is one that all readers share, and is written without an exponent.
    """
    return SchemaValidator(core.definitions_schema(_fields(kind), [ANY_JSON])).isinstance_python


def _fields(model: type[BaseModel]) -> CoreSchema:
    hints = get_type_hints(model, include_extras=True)
    fields = {
        field.alias or name: core.typed_dict_field(_schema(hints[name]), required=field.is_required())
        for name, field in model.model_fields.items()
    }
    if issubclass(model, Record):
        for name, value in (("schema", model.schema_id), ("schema_version", model.version)):
            fields[name] = core.typed_dict_field(core.literal_schema([value]), required=False)
    return core.typed_dict_schema(fields, extra_behavior="forbid")


def _schema(hint: Any) -> CoreSchema:
    """What a field takes for certain. Of a type that is not known here, that is nothing."""
    for known, schema in KNOWN:
        if hint == known:
            return schema
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _any_of([_schema(one) for one in inner if one is not NoneType], nullable=NoneType in inner)
    if origin is Literal:
        return core.literal_schema(list(inner))
    if origin is list:
        return core.list_schema(_schema(inner[0]), strict=True)
    if isinstance(hint, type) and issubclass(hint, BaseModel) and _is_its_fields(hint):
        return _fields(hint)
    return NOTHING


def _any_of(schemas: list[CoreSchema], *, nullable: bool) -> CoreSchema:
    schema = schemas[0] if len(schemas) == 1 else core.union_schema(list(schemas), mode="left_to_right")
    return core.nullable_schema(schema) if nullable else schema


def _is_its_fields(model: type[BaseModel]) -> bool:
    """Whether a model has no rules beside its fields but those that are known here."""
    rules = model.__pydantic_decorators__
    beside = {*rules.validators, *rules.field_validators, *rules.root_validators, *rules.model_validators}
    return not beside - RECORD_RULES


# --- values -------------------------------------------------------------------------------------


def _text(pattern: str) -> CoreSchema:
    return core.str_schema(strict=True, pattern=pattern)


TEXT: Final = core.str_schema(strict=True)
NAME: Final = _text(r"^[A-Za-z0-9._-]{1,128}$")
DAY: Final = (
    r"(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
)
HOUR: Final = r"(?:[01][0-9]|2[0-3])"
TIME: Final = _text(
    rf"^[1-9][0-9]{{3}}-{DAY}T{HOUR}:[0-5][0-9]:[0-5][0-9](?:\.[0-9]{{1,6}})?(?:Z|[+-]{HOUR}:[0-5][0-9])$"
)
"""An RFC 3339 time; leap days are left to the model."""
INTEGER: Final = core.int_schema(strict=True, ge=-SAFE_INTEGER_MAX, le=SAFE_INTEGER_MAX)
COUNT: Final = core.int_schema(strict=True, ge=0, le=SAFE_INTEGER_MAX)
NUMBER: Final = core.union_schema(
    [
        core.float_schema(strict=True, ge=FIXED_MIN, le=SAFE_INTEGER_MAX),
        INTEGER,
        core.float_schema(strict=True, ge=-SAFE_INTEGER_MAX, le=-FIXED_MIN),
        core.float_schema(strict=True, ge=0, le=0),
    ],
    mode="left_to_right",
)
JSON_REF: Final = "json"
JSON: Final = core.definition_reference_schema(JSON_REF)
OBJECT: Final = core.dict_schema(TEXT, JSON, strict=True)
ANY_JSON: Final = core.union_schema(
    [
        TEXT,
        core.none_schema(),
        core.bool_schema(strict=True),
        NUMBER,
        OBJECT,
        core.list_schema(JSON, strict=True),
    ],
    mode="left_to_right",
    ref=JSON_REF,
)
NOTHING: Final = core.literal_schema([object()])

KNOWN: Final[tuple[tuple[Any, CoreSchema], ...]] = (
    (str, TEXT),
    (RunId, NAME),
    (Timestamp, TIME),
    (Measure, NUMBER),
    (Tally, COUNT),
    (int, INTEGER),
    (StrictBool, core.bool_schema(strict=True)),
    (tuple[int, int], core.list_schema(INTEGER, strict=True, min_length=2, max_length=2)),
    (JsonObject, OBJECT),
    (SafeJson, JSON),
)
