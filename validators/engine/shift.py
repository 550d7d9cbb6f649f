"""When a shift is, in instants and in the days of its site."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

YEAR_MIN: Final = 1900
YEAR_MAX: Final = 9000
"""Years between which no conversion of zones can overflow."""

WEEKS_MAX: Final = 54
"""Weeks of one shift that are looked at: no order is for more than a year."""


@dataclass(frozen=True, slots=True)
class Shift:
    """`[start, end)` in UTC, the first and last day where the work is done, and the zone kept there."""

    start: datetime
    end: datetime
    first_day: date
    last_day: date
    zone: tzinfo | None

    @classmethod
    def at(cls, start: datetime, end: datetime, zones: Sequence[ZoneInfo]) -> "Shift":
        """`zones` are those that the site may keep, the likeliest first; none where it is not known."""
        first = _local(start, zones)
        last = _local(end - timedelta(microseconds=1), zones)
        return cls(start.astimezone(UTC), end.astimezone(UTC), first.date(), last.date(), first.tzinfo)

    def overlaps(self, start: datetime, end: datetime) -> bool:
        return self.start < end and start < self.end

    def weeks(self, first_weekday: int) -> Iterator[tuple[date, datetime, datetime]]:
        """The site's weeks that the shift touches: the first day of each, and its begin and end."""
        day = self.first_day - timedelta(days=(self.first_day.weekday() - first_weekday) % 7)
        for _ in range(WEEKS_MAX):
            if day > self.last_day:
                break
            following = day + timedelta(days=7)
            yield day, self._midnight(day), self._midnight(following)
            day = following

    def _midnight(self, day: date) -> datetime:
        return datetime.combine(day, time.min, self.zone).astimezone(UTC)


def _local(instant: datetime, zones: Sequence[ZoneInfo]) -> datetime:
    """The time at the site.

    An offset that one of its zones has at that instant is the site's own. Any other is somebody else's: of
    an office elsewhere, or UTC.
    """
    for zone in zones:
        local = instant.astimezone(zone)
        if local.utcoffset() == instant.utcoffset():
            return local
    return instant.astimezone(zones[0]) if zones else instant


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
