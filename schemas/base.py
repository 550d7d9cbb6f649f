"""What every model shares: refusal of unknown fields, and numbers that JSON can carry everywhere."""

import re
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    WithJsonSchema,
)

SAFE_INTEGER_MAX: Final = 2**53 - 1
"""Beyond this, JavaScript and other readers of our records would silently round."""

RunId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,128}$")]
"""What names a run or an episode; also what a request id may look like."""


def _check_numbers(value: Any) -> Any:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, int) and abs(item) > SAFE_INTEGER_MAX:
            raise ValueError(f"integers beyond 2^53 cannot be kept exactly; send {item} as a string")
        elif isinstance(item, float) and (item != item or item in (float("inf"), float("-inf"))):  # noqa: PLR0124
            raise ValueError("NaN and infinities are refused")
    return value


SafeJson = Annotated[JsonValue, AfterValidator(_check_numbers)]
"""Any JSON value whose numbers every reader can hold exactly."""

JsonObject = Annotated[dict[str, JsonValue], AfterValidator(_check_numbers)]
"""A JSON object with the same promise as `SafeJson`."""


def _number(value: Any) -> Any:
    if isinstance(value, str | bool):
        raise ValueError("this is a number, not a text or a truth value")  # noqa: TRY004 - pydantic's way
    return value


Measure = Annotated[float, BeforeValidator(_number)]
"""A number in a record. Texts that look like one are refused, as a JSON Schema does."""

Tally = Annotated[int, Field(ge=0), BeforeValidator(_number)]
"""A whole number of things in a record; 3.0 is one too."""


def _said(value: Any) -> Any:
    return False if value is None else value


Flag = Annotated[
    bool,
    BeforeValidator(_said),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "null"}]}),
]
"""True or false in a body of another's API, where null is as good as nothing said: clients write it out."""

_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _time(value: Any) -> Any:
    if isinstance(value, int | float) or (isinstance(value, str) and _RFC3339.fullmatch(value) is None):
        raise ValueError("this is not an RFC 3339 time with an offset, such as 2026-11-02T06:00:00Z")
    return value


Timestamp = Annotated[AwareDatetime, BeforeValidator(_time)]
"""A moment in a record, as RFC 3339: what `format: date-time` means to every reader."""


class Model(BaseModel):
    """A request, answer or record of our own: frozen, unknown fields refused, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class OpenAIModel(BaseModel):
    """A body of an OpenAI-compatible route: unknown fields are ignored, as clients expect.

    Values are of the type that the API says: a text is no number and no truth value, as with OpenAI.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, strict=True)
