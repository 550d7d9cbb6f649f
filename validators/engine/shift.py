"""When a shift is, in instants and in the days of its site."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

YEAR_MIN: Final = 1900
YEAR_MAX: Final = 9000
"""Years between which no conversion of zones can overflow."""


@dataclass(frozen=True, slots=True)
class Shift:
    """`[start, end)`, and its first and last day where the work is done."""

    start: datetime
    end: datetime
    first_day: date
    last_day: date

    @classmethod
    def at(cls, start: datetime, end: datetime, zone: ZoneInfo | None) -> "Shift":
        """Days are counted by the offset that a time carries; by `zone` where it is given in UTC."""
        last = end - timedelta(microseconds=1)
        return cls(start, end, _local(start, zone).date(), _local(last, zone).date())

    def overlaps(self, start: datetime, end: datetime) -> bool:
        return self.start < end and start < self.end


def _local(instant: datetime, zone: ZoneInfo | None) -> datetime:
    in_utc = instant.utcoffset() == timedelta(0)
    return instant.astimezone(zone) if zone is not None and in_utc else instant


def parse_instant(text: str) -> datetime | None:
    """An ISO 8601 time with an offset; None for anything else."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    if instant.utcoffset() is None or not YEAR_MIN <= instant.year <= YEAR_MAX:
        return None
    return instant


def age_on(day: date, born: date) -> int:
    """Completed years. Who was born on 29 February has a birthday on 1 March in other years."""
    return day.year - born.year - ((day.month, day.day) < (born.month, born.day))
