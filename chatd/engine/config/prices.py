"""What a call has cost, by its provider's own count."""

from collections.abc import Mapping

from chatd.engine.config.models import Price
from schemas.base import JsonObject

MILLION = 1_000_000


def cost_usd(prices: Mapping[str, Price] | None, raw_usage: JsonObject | None) -> float | None:
    """US dollars; None where there is no price, no usage, or a count that is needed and missing."""
    if prices is None or raw_usage is None:
        return None
    total = 0.0
    for pointer, price in prices.items():
        count = _count(raw_usage, pointer)
        if count is None and not price.optional:
            return None
        total += (count or 0) * price.usd_per_million / MILLION
    return max(total, 0.0)


def _count(usage: JsonObject, pointer: str) -> float | None:
    value: object = usage
    for part in pointer[1:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 else None
