"""Pydantic's faults in our words: where, as a dotted path that the sender would write, and why."""

import re
from collections.abc import Mapping
from typing import Any, Final

# Pydantic names the member of a union that it tried, and functions around a type, as if they were fields.
NO_FIELD: Final = re.compile(
    r"[A-Z].*|.*[\[(].*|constrained-[a-z]+|str|int|float|bool|list|dict|none|nullable"
)
PARAM_PARTS_MAX: Final = 16
VALUE_ERROR: Final = "Value error, "


def param_of(location: tuple[int | str, ...]) -> str:
    """The dotted path of a fault, such as `points.3.vector`; empty where the fault is in the whole."""
    parts: list[str] = []
    before: int | str | None = None
    for part in location:
        tag = isinstance(part, str) and (NO_FIELD.fullmatch(part) or part == before)
        if not tag:  # a member of a tagged union is named by its tag, which ours have as their field too
            parts.append(str(part))
        before = part
    return ".".join(parts[:PARAM_PARTS_MAX])


def reason_of(fault: Mapping[str, Any]) -> str:
    """Why a value was refused, without pydantic's own opening words."""
    message: str = fault["msg"]
    return message.removeprefix(VALUE_ERROR)
