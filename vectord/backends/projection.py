"""A payload's searchable form: every value under a tag of its type, so that types never mix in an index.

Engines disagree with themselves about types: a boolean matches the integer 1, a float index hides strings,
a range of numbers finds date-times. So the engine sees `{"age": 41}` as `{"age": {"$n": [41]}}` and each
test goes to the tag of its type, where an index of that type may lie. The payload itself is kept as JSON.
"""

from typing import Any, Final

from schemas.base import SAFE_INTEGER_MAX
from schemas.vectors import IndexKind
from vectord.backends.paths import Path, parse_datetime

STRING: Final = "$s"
NUMBER: Final = "$n"
BOOLEAN: Final = "$b"
DATETIME: Final = "$d"
ELEMENTS: Final = "$a"
TAG_OF_KIND: Final[dict[IndexKind, str]] = {
    "keyword": STRING,
    "integer": NUMBER,
    "float": NUMBER,
    "bool": BOOLEAN,
    "datetime": DATETIME,
}
ROOT: Final = "p"

Json = Any


def project(payload: dict[str, Json]) -> dict[str, Json]:
    """The searchable form of a payload (or of an object inside one)."""
    return {
        _escape(key): _project(value) for key, value in payload.items() if value is not None and value != []
    }


def number(value: float) -> float:
    """The number as the engine keeps it, in payloads and in bounds alike.

    Its JSON reader may miss the last digit of floats with more than 15, so those are rounded to 15;
    whole numbers up to 2^53 stay whole, and exact.
    """
    if isinstance(value, int) or (value.is_integer() and abs(value) <= SAFE_INTEGER_MAX):
        return int(value)
    return float(f"{value:.15g}")


def boolean(value: bool) -> str:
    return "true" if value else "false"


def json_path(path: Path, tag: str | None = None) -> str:
    """The engine's path of a field, or of its values of one type."""
    parts = [ROOT]
    for step in path:
        parts.append(f'"{_escape(step.name)}"')
        if step.each:
            parts.append(f'"{ELEMENTS}"[]')
    if tag is not None:
        parts.append(f'"{tag}"')
    return ".".join(parts)


def _escape(key: str) -> str:
    return f"${key}" if key.startswith("$") else key


def _project(value: Json) -> Json:
    if isinstance(value, dict):
        return project(value)
    tags: dict[str, list[Json]] = {}
    for item in value if isinstance(value, list) else [value]:
        for tag, form in _tagged(item):
            tags.setdefault(tag, []).append(form)
    return tags


def _tagged(item: Json) -> list[tuple[str, Json]]:
    if isinstance(item, bool):
        return [(BOOLEAN, boolean(item))]
    if isinstance(item, int | float):
        return [(NUMBER, number(item))]
    if isinstance(item, str):
        moment = parse_datetime(item)
        return [(STRING, item)] if moment is None else [(STRING, item), (DATETIME, number(moment))]
    if isinstance(item, dict):
        return [(ELEMENTS, project(item))]
    return []  # null, and lists inside lists: no test can name them
