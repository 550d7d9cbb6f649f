"""Times of records: as their schema lets them pass, and as whole microseconds, which keep their order."""

from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic import AwareDatetime, TypeAdapter

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_ANY_FORM: Final = TypeAdapter(AwareDatetime)


def read(text: str) -> datetime:
    """A time that its schema has let pass."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:  # a form that the schema takes and Python does not, such as a `z` for UTC
        return _ANY_FORM.validate_python(text)


def microseconds(when: datetime) -> int:
    """Microseconds since 1970."""
    return (when - EPOCH) // _MICROSECOND


def moment(text: str) -> int:
    """The same of a time that its schema has let pass."""
    return microseconds(read(text))


_FIRST: Final = microseconds(datetime.min.replace(tzinfo=UTC))
_LAST: Final = microseconds(datetime.max.replace(tzinfo=UTC))


def time_at(moment: int) -> datetime:
    """The time that is so many microseconds after 1970 began.

    By its offset, a record's time may lie a day beyond what UTC has years for; it is the last one then.
    """
    return EPOCH + min(max(moment, _FIRST), _LAST) * _MICROSECOND
