"""What a request may ask for, and the one way to say that it asks for too much."""

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import orjson

from schemas.vectors import Condition, Distance, Filter
from services.errors import InvalidRequest
from vectord.backends import parse_datetime, parse_path

COMPONENT_MAX = 1e15
"""Squares of larger numbers, summed, could leave float32."""

PAYLOAD_DEPTH_MAX = 32


@dataclass(frozen=True, slots=True)
class Limits:
    collections_max: int = 256
    points_max: int = 1000
    k_max: int = 1000
    retrieve_k_max: int = 100
    dimension_max: int = 8192
    text_bytes_max: int = 65_536
    payload_bytes_max: int = 65_536
    embed_batch_max: int = 128
    optimize_after_points: int = 10_000
    search_ef: int | None = None
    benchmark_timeout_s: float = 120.0
    optimize_after_commits: int = 64
    rebuild_changes_max: int = 1_000_000
    rebuild_recall_min: float = 0.95
    edge_rows_max: int = 5_000_000
    edge_memory_bytes_max: int = 8 * 1024**3
    lance_rows_max: int = 50_000_000
    batch_max: int = 64
    facet_points_max: int = 200_000
    snapshots_max: int = 16
    snapshot_bytes_max: int = 64 * 1024**3


def at_most(what: str, given: int, limit: int, *, param: str) -> None:
    if given > limit:
        raise InvalidRequest(f"{what}: {given} given, at most {limit} accepted", param=param)


def check_text(text: str, limits: Limits, *, param: str) -> int:
    """Its length in bytes. Raises 400 for one that is too long."""
    size = len(text.encode())
    at_most("UTF-8 bytes of text", size, limits.text_bytes_max, param=param)
    return size


def checked_vector(
    vector: Sequence[float], dimension: int, distance: Distance, *, param: str
) -> Sequence[float]:
    """The vector, fit to be stored as float32 and compared: finite, of the right length, not zero."""
    if len(vector) != dimension:
        raise InvalidRequest(
            f"the vector has {len(vector)} numbers; this collection has dimension {dimension}",
            code="dimension_mismatch",
            param=param,
        )
    length = math.hypot(*vector)
    if not length <= COMPONENT_MAX and not all(abs(number) <= COMPONENT_MAX for number in vector):
        raise InvalidRequest(f"the vector's numbers are finite and at most {COMPONENT_MAX:g}", param=param)
    if distance != "cosine":
        return array("f", vector)
    if length == 0:
        raise InvalidRequest("a vector of zeros has no direction, and no cosine", param=param)
    # Very short or long ones would under- or overflow when the engine squares them in float32.
    return array("f", vector if 1e-3 < length < 1e3 else [number / length for number in vector])


def check_payload(payload: dict[str, object], limits: Limits, *, param: str) -> int:
    """Its length in bytes, as JSON. Raises 400 for one that is too long or too deep."""
    level: list[object] = [payload]
    for _ in range(PAYLOAD_DEPTH_MAX):
        level = [item for value in level for item in _inside(value)]
        if not level:
            break
    else:
        raise InvalidRequest(f"a payload nests at most {PAYLOAD_DEPTH_MAX} deep", param=param)
    size = len(orjson.dumps(payload))
    at_most("bytes of payload", size, limits.payload_bytes_max, param=param)
    return size


def _inside(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def check_filter(node: Filter | Condition | None, *, param: str = "filter") -> None:
    """Raise 400, naming the place, for a path or date-time that cannot be read."""
    if isinstance(node, Filter):
        for name in ("must", "should", "must_not"):
            for number, inner in enumerate(getattr(node, name)):
                check_filter(inner, param=f"{param}.{name}.{number}")
    elif node is not None:
        check_path(node.key, param=f"{param}.key")
        bounds = node.range.model_dump(exclude_none=True) if node.range is not None else {}
        for name, bound in bounds.items():
            if isinstance(bound, str) and parse_datetime(bound) is None:
                raise InvalidRequest(
                    f"{bound!r} is not a date-time such as 2026-05-01T08:00:00-05:00",
                    param=f"{param}.range.{name}",
                )


def check_path(key: str, *, param: str) -> None:
    try:
        parse_path(key)
    except ValueError as error:
        raise InvalidRequest(str(error), param=param) from None
