"""What every model shares: refusal of unknown fields, and numbers that JSON can carry everywhere."""

from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, JsonValue

SAFE_INTEGER_MAX: Final = 2**53 - 1
"""Beyond this, JavaScript and other readers of our records would silently round."""


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


class Model(BaseModel):
    """A request, answer or record of our own: frozen, unknown fields refused, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class OpenAIModel(BaseModel):
    """A body of an OpenAI-compatible route: unknown fields are ignored, as clients expect."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)
