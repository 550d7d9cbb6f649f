"""How often each value of a field occurs among the points that a caller may see."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from pydantic import JsonValue

from schemas.vectors import Facet, FacetsRequest, FacetsResponse, PointSelector, ScrollRequest
from services.errors import InvalidRequest
from vectord.backends import Path, parse_path
from vectord.engine.core import Engine
from vectord.engine.gate import Limited
from vectord.engine.limits import Limits, check_path

VALUES_MAX: Final = 100_000
"""Different values that are counted at once."""

Value = str | int | float | bool
Kept = tuple[type, Value]


async def facets(
    engine: Engine, name: str, request: FacetsRequest, limited: Limited, limits: Limits
) -> FacetsResponse:
    """Read every matching point, through the gate like any other reader, and count.

    Writes meanwhile may or may not be in. Numbers are equal by value, and never to strings or booleans.
    """
    check_path(request.key, param="key")
    path = parse_path(request.key)
    selector = PointSelector(filter=request.filter, role=request.role)
    points = (await engine.count(name, selector, limited)).count
    if points > limits.facet_points_max:
        raise InvalidRequest(
            f"{points} points match; facets look at {limits.facet_points_max} at most: narrow the filter",
            code="too_many_points",
            param="filter",
        )
    counts, seen = await _counted(engine, name, path, request, limited, limits=limits)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0][0].__name__, item[0][1]))
    best = [Facet(value=value, count=count) for (_, value), count in ordered[: request.limit]]
    return FacetsResponse(facets=best, values=len(counts), points=seen)


async def _counted(
    engine: Engine, name: str, path: Path, request: FacetsRequest, limited: Limited, *, limits: Limits
) -> tuple[Counter[Kept], int]:
    """How often each value occurs, and how many points were read."""
    counts: Counter[Kept] = Counter()
    seen, cursor = 0, None
    while True:
        page = await engine.scroll(
            name,
            ScrollRequest(
                filter=request.filter,
                role=request.role,
                limit=limits.points_max,
                cursor=cursor,
                with_=["payload"],
            ),
            limited,
        )
        for point in page.points:
            counts.update(values_at(path, point.payload))
        seen += len(page.points)
        if len(counts) > VALUES_MAX:
            raise InvalidRequest(
                f"`{request.key}` has more than {VALUES_MAX} different values: narrow the filter",
                code="too_many_values",
                param="key",
            )
        cursor = page.cursor
        if cursor is None:
            break
    return counts, seen


def values_at(path: Path, payload: JsonValue) -> set[Kept]:
    """The values that a filter on this path would match, each once."""
    return {_kept(value) for value in _found(path, payload) if isinstance(value, Value)}


def _kept(value: Value) -> Kept:
    if isinstance(value, bool):
        return bool, value
    if isinstance(value, int | float):
        return float, int(value) if value == int(value) else value
    return str, value


def _found(path: Path, value: JsonValue) -> Iterator[JsonValue]:
    if not path:
        yield from value if isinstance(value, list) else [value]
        return
    step = path[0]
    if not isinstance(value, dict) or step.name not in value:
        return
    inner = value[step.name]
    if not step.each:
        yield from _found(path[1:], inner)
    elif isinstance(inner, list):
        for item in inner:
            yield from _found(path[1:], item)
