"""A roster of Parquet, held in Arrow's columns: half a million workers without a Python object for each."""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.verdicts import RosterInfo
from validators.backends.roster import AssignmentFact, CertificateFact, Keys, WorkerFacts

STATUSES: Final = ("active", "inactive", "do_not_place")
NO_DATE: Final = 2**31 - 1
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
DAY_MIN: Final = date.min.toordinal() - EPOCH_DAY
DAY_MAX: Final = date.max.toordinal() - EPOCH_DAY
US_PER_DAY: Final = 86_400_000_000
UTC_US: Final = pa.timestamp("us", "UTC")

Numbers = Sequence[int]


class BrokenRoster(ValueError):
    """The file cannot serve as the roster; the message names the column and the reason."""


class ParquetRoster:
    """A snapshot. Ids are found by binary search, candidates through an index by role and place."""

    def __init__(self, data: bytes, *, as_of: str, keys: Keys) -> None:
        """Read a whole file. Raises `BrokenRoster`."""
        try:
            columns = _Columns(pq.ParquetFile(pa.BufferReader(data)))
            self._read(columns, keys)
        except pa.ArrowException as error:
            raise BrokenRoster(f"the file cannot be read as Parquet ({type(error).__name__})") from error
        self.info = RosterInfo(sha256=hashlib.sha256(data).hexdigest(), as_of=as_of, rows=columns.rows)

    def _read(self, columns: "_Columns", keys: Keys) -> None:
        ids = columns.strings("worker_id", nullable=False)
        self._ids = _Strings(ids)
        self._by_id = _index_ids(ids, self._ids)
        self._first = _Strings(columns.strings("first_name"))
        self._last = _Strings(columns.strings("last_name"))
        self._status = _Coded(columns.strings("status", nullable=False))
        if wrong := sorted(set(self._status.values) - set(STATUSES)):
            raise BrokenRoster(f"column `status` has {wrong[0]!r}; it may have {', '.join(STATUSES)}")
        self._city = _Coded(columns.strings("city"))
        self._state = _Coded(columns.strings("state"))
        columns.strings("zip")  # no rule reads it yet; a file without it is not the agreed one
        self._phone = _Strings(columns.strings("phone"))
        self._email = _Strings(columns.strings("email"))
        self._born = _days("date_of_birth", columns.array("date_of_birth"))
        roles = columns.lists("roles")
        self._roles_at = _offsets(roles)
        self._roles = _Coded(_as_strings("roles", roles.values))
        blocked = columns.lists("blocked_clients")
        self._blocked_at = _offsets(blocked)
        self._blocked = _Coded(_as_strings("blocked_clients", blocked.values))
        certs = columns.lists("certs")
        self._certs_at = _offsets(certs)
        code, expires = _members("certs", certs.values, ("code", "expires"))
        self._cert_codes = _Coded(_as_strings("certs.code", code))
        self._cert_days = _days("certs.expires", expires)
        assignments = columns.lists("assignments")
        self._assigned_at = _offsets(assignments)
        order_id, start, end = _members("assignments", assignments.values, ("order_id", "start", "end"))
        self._assigned_to = _Strings(_as_strings("assignments.order_id", order_id))
        self._starts = _instants("assignments.start", start)
        self._ends = _instants("assignments.end", end)
        self._candidates = _Candidates(
            roles, keys, role=self._roles, city=self._city, state=self._state, status=self._status
        )

    def find(self, worker_id: str) -> WorkerFacts | None:
        """The worker with exactly this id."""
        try:
            wanted = worker_id.encode()
        except UnicodeEncodeError:
            return None
        place = bisect_left(self._by_id, wanted, key=self._ids.raw)
        if place == len(self._by_id) or self._ids.raw(row := self._by_id[place]) != wanted:
            return None
        return self._facts(row)

    def candidates(self, role: str, place: str) -> Iterator[WorkerFacts]:
        """The active workers of a role and a place, in the file's order."""
        return map(self._facts, self._candidates.rows(role, place))

    def _facts(self, row: int) -> WorkerFacts:
        born = self._born[row]
        return WorkerFacts(
            row=row,
            worker_id=self._ids[row],
            first_name=self._first[row],
            last_name=self._last[row],
            status=self._status[row],
            roles=[self._roles[at] for at in _slots(self._roles_at, row)],
            city=self._city[row],
            state=self._state[row],
            phone=self._phone[row],
            email=self._email[row],
            date_of_birth=_date(born),
            certs=[
                CertificateFact(self._cert_codes[at], _date(self._cert_days[at]))
                for at in _slots(self._certs_at, row)
            ],
            blocked_clients=[self._blocked[at] for at in _slots(self._blocked_at, row)],
            assignments=[
                AssignmentFact(self._assigned_to[at], _instant(self._starts[at]), _instant(self._ends[at]))
                for at in _slots(self._assigned_at, row)
            ],
        )


class _Candidates:
    """Rows of active workers by (role, place): two parallel arrays, sorted by a number made of both."""

    def __init__(
        self,
        roles: Any,
        keys: Keys,
        *,
        role: "_Coded",
        city: "_Coded",
        state: "_Coded",
        status: "_Coded",
    ) -> None:
        self._roles, role_ids = _canonical([keys.role(text) for text in role.values])
        pairs = pc.add(
            pc.multiply(city.codes.cast(pa.int64()), len(state.values)), state.codes.cast(pa.int64())
        )
        unique = pairs.dictionary_encode()
        spelled = [divmod(pair, len(state.values)) for pair in unique.dictionary.to_pylist()]
        self._places, place_ids = _canonical(
            [keys.place(city.values[c], state.values[s]) for c, s in spelled]
        )
        parents = pc.list_parent_indices(roles)
        active = pc.take(pa.array([text == "active" for text in status.values], pa.bool_()), status.codes)
        placeable = pc.take(active, parents)
        parents = parents.filter(placeable)
        row_places = pc.take(pc.take(place_ids, unique.indices), parents)
        row_roles = pc.take(role_ids, role.codes.filter(placeable))
        numbers = pc.add(pc.multiply(row_roles, len(self._places)), row_places)
        order = pc.sort_indices(
            pa.table({"key": numbers, "row": parents}), [("key", "ascending"), ("row", "ascending")]
        )
        self._keys = _view(pc.take(numbers, order), "q")
        self._rows = _view(pc.take(parents, order).cast(pa.uint32()), "I")

    def rows(self, role: str, place: str) -> Iterator[int]:
        role_id, place_id = self._roles.get(role), self._places.get(place)
        if role_id is None or place_id is None:
            return
        key = role_id * len(self._places) + place_id
        last = -1
        for at in range(bisect_left(self._keys, key), bisect_right(self._keys, key)):
            if (row := self._rows[at]) != last:  # two spellings of one role are one candidate
                yield row
            last = row


def _canonical(names: Sequence[str]) -> tuple[dict[str, int], Any]:
    """Numbers for the distinct names, and the number of each of `names` as int64."""
    ids: dict[str, int] = {}
    numbers = [ids.setdefault(name, len(ids)) for name in names]
    return ids, pa.array(numbers, pa.int64())


# --- columns ----------------------------------------------------------------------------------


class _Columns:
    """The file's columns, one at a time, so that the whole never lies in memory twice."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._names = set(file.schema_arrow.names)
        self.rows: int = file.metadata.num_rows

    def array(self, name: str) -> Any:
        if name not in self._names:
            raise BrokenRoster(f"column `{name}` is missing")
        column = self._file.read(columns=[name]).column(0)
        return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)

    def strings(self, name: str, *, nullable: bool = True) -> Any:
        array = self.array(name)
        if not nullable and array.null_count:
            raise BrokenRoster(f"column `{name}` has {array.null_count} nulls; every worker needs a value")
        return _as_strings(name, array)

    def lists(self, name: str) -> Any:
        array = self.array(name)
        if not (pa.types.is_list(array.type) or pa.types.is_large_list(array.type)):
            raise BrokenRoster(f"column `{name}` is {array.type}; expected a list")
        return array.cast(pa.list_(array.type.value_type))


class _Strings:
    """Texts of a column, read straight from its buffers."""

    __slots__ = ("_data", "_offsets")

    def __init__(self, array: Any) -> None:
        _, offsets, data = array.buffers()
        count = len(array)
        whole = memoryview(offsets)[: (array.offset + count + 1) * 4].cast("i") if count else memoryview(b"")
        self._offsets = whole[array.offset :]
        self._data = memoryview(data) if data is not None else memoryview(b"")

    def raw(self, row: int) -> bytes:
        return bytes(self._data[self._offsets[row] : self._offsets[row + 1]])

    def __getitem__(self, row: int) -> str:
        return self.raw(row).decode()


class _Coded:
    """A column of few distinct texts: the texts once, and a number for each row."""

    __slots__ = ("_numbers", "codes", "values")

    def __init__(self, array: Any) -> None:
        encoded = array.dictionary_encode()
        self.values: list[str] = encoded.dictionary.to_pylist()
        self.codes = encoded.indices
        self._numbers = _view(encoded.indices, "i")

    def __getitem__(self, row: int) -> str:
        text: str = self.values[self._numbers[row]]
        return text


def _view(array: Any, code: Literal["i", "I", "q"]) -> Numbers:
    """A column of numbers without nulls as a sequence of Python integers, not copied."""
    size = array.type.bit_width // 8
    if not len(array):
        return ()
    return memoryview(array.buffers()[1])[array.offset * size : (array.offset + len(array)) * size].cast(code)


def _as_strings(name: str, array: Any) -> Any:
    kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise BrokenRoster(f"column `{name}` is {array.type}; expected string")
    return array.cast(pa.string()).fill_null("")


def _members(name: str, array: Any, members: Sequence[str]) -> list[Any]:
    if not pa.types.is_struct(array.type):
        raise BrokenRoster(f"column `{name}` is a list of {array.type}; expected a list of struct")
    known = {field.name for field in array.type}
    if absent := [member for member in members if member not in known]:
        raise BrokenRoster(f"column `{name}.{absent[0]}` is missing")
    flat = dict(zip((field.name for field in array.type), array.flatten(), strict=True))
    return [flat[member] for member in members]


def _days(name: str, array: Any) -> Numbers:
    """Days since 1970; `NO_DATE` where there is none."""
    kind = array.type
    if not (pa.types.is_date(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise BrokenRoster(f"column `{name}` is {kind}; expected date32 or an ISO string")
    try:
        days = array.cast(pa.date32()).cast(pa.int32())
    except pa.ArrowInvalid as error:
        raise BrokenRoster(f"column `{name}` has a text that is not an ISO date") from error
    _check_range(name, days, DAY_MIN, DAY_MAX)
    return _view(days.fill_null(NO_DATE), "i")


def _instants(name: str, array: Any) -> Numbers:
    """Microseconds since 1970, UTC."""
    kind = array.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (text or (pa.types.is_timestamp(kind) and kind.tz is not None)):
        raise BrokenRoster(
            f"column `{name}` is {kind}; expected timestamp[us, UTC] or an ISO string with an offset"
        )
    if array.null_count:
        raise BrokenRoster(f"column `{name}` has {array.null_count} nulls; every assignment needs both times")
    try:
        instants = array.cast(UTC_US, safe=text).cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise BrokenRoster(f"column `{name}` has a text that is not an ISO time with an offset") from error
    _check_range(name, instants, DAY_MIN * US_PER_DAY, DAY_MAX * US_PER_DAY)
    return _view(instants, "q")


def _check_range(name: str, numbers: Any, least: int, most: int) -> None:
    bounds = pc.min_max(numbers).as_py()
    if bounds["min"] is not None and not least <= bounds["min"] <= bounds["max"] <= most:
        raise BrokenRoster(f"column `{name}` has a value outside of the years 1 to 9999")


def _index_ids(ids: Any, texts: _Strings) -> Numbers:
    """The rows in the order of their ids. Raises where an id comes twice."""
    order = pc.sort_indices(ids).cast(pa.uint32())
    if len(ids) > 1:
        ordered = ids.take(order)
        repeated = pc.index(pc.equal(ordered.slice(1), ordered.slice(0, len(ids) - 1)), value=True).as_py()
        if repeated >= 0:
            row = order[repeated].as_py()
            raise BrokenRoster(f"column `worker_id` has {texts[row]!r} twice; ids must be unique")
    return _view(order, "I")


def _offsets(lists: Any) -> Numbers:
    return _view(lists.offsets, "i")


def _slots(offsets: Numbers, row: int) -> range:
    return range(offsets[row], offsets[row + 1])


def _date(days: int) -> date | None:
    return None if days == NO_DATE else date.fromordinal(EPOCH_DAY + days)


def _instant(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)
