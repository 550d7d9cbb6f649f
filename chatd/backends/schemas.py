"""JSON Schemas, for providers that can hold an answer to some of them."""

from typing import Any, Final

from schemas.base import JsonObject

_PLAIN: Final = frozenset(
    {
        "title",
        "description",
        "type",
        "enum",
        "const",
        "default",
        "format",
        "$ref",
        "required",
        "$schema",
        "$id",
    }
)
_BY_NAME: Final = frozenset({"properties", "$defs", "definitions"})
_IN_A_LIST: Final = frozenset({"anyOf", "allOf"})


def natively(schema: JsonObject) -> JsonObject | None:
    """The schema with its objects closed, as strict decoders want it; None where it says more than they take.

    What the closed schema accepts is accepted by the one given, so nothing is promised that is not kept.
    """
    try:
        return _closed(schema)
    except _BeyondDecoders:
        return None


class _BeyondDecoders(Exception):
    """A keyword that decoders do not know."""


def _closed(schema: Any) -> dict[str, Any]:
    if not isinstance(schema, dict):
        raise _BeyondDecoders
    closed = {key: _kept(key, value) for key, value in schema.items() if key != "additionalProperties"}
    if schema.get("additionalProperties", False) is not False:
        raise _BeyondDecoders
    kind = schema.get("type")
    if kind == "object" or (isinstance(kind, list) and "object" in kind):
        if "properties" not in schema:
            raise _BeyondDecoders  # any object at all
        closed["additionalProperties"] = False
    return closed


def _kept(key: str, value: Any) -> Any:
    if key in _BY_NAME and isinstance(value, dict):
        return {name: _closed(one) for name, one in value.items()}
    if key in _IN_A_LIST and isinstance(value, list):
        return [_closed(one) for one in value]
    if key == "items":
        return _closed(value)
    if key in _PLAIN:
        return value
    raise _BeyondDecoders
