"""How a filter names a payload field, and which strings are date-times: the same for every store."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

SEGMENT = re.compile(r'([^.\[\]"\\]+)(\[\])?')
DATETIME = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})"
    r"(?:[Tt ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?\s?([Zz]|[+-]\d{2}(?::?\d{2})?)?)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Step:
    """One part of a path. `each`: the value is a list, and the path goes on in any of its objects."""

    name: str
    each: bool


Path = tuple[Step, ...]


def parse_path(key: str) -> Path:
    """Read `a.b`, `a[].b`. Raises ValueError, saying what a path looks like.

    A path ends in a field, not in `[]`: a test on a list holds for any of its elements anyway.
    """
    steps = []
    for part in key.split("."):
        match = SEGMENT.fullmatch(part)
        if match is None:
            raise ValueError(
                f"{key!r} is not a path such as city, address.city or shifts[].city"
                r' (names are not empty and hold none of . [ ] " \)'
            )
        steps.append(Step(match[1], match[2] is not None))
    steps[-1] = Step(steps[-1].name, each=False)
    return tuple(steps)


def parse_datetime(text: str) -> float | None:
    """Microseconds since 1970 of an ISO 8601 date or date-time, or None when it is neither.

    Without an offset it is UTC. A float holds them exactly until the year 2255.
    """
    match = DATETIME.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in match.group(1, 2, 3, 4, 5, 6))
    micros = int((match[7] or "0").ljust(6, "0")[:6])
    try:
        moment = datetime(year, month, day, hour, minute, second, micros, tzinfo=_zone(match[8]))
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    return float(since // timedelta(microseconds=1))


def _zone(text: str | None) -> timezone:
    if text is None or text in "Zz":
        return UTC
    digits = text[1:].replace(":", "").ljust(4, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-offset if text[0] == "-" else offset)
