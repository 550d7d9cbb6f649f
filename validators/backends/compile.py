"""Makes an index file from a Parquet roster: `python compile.py ROSTER FD NICE`.

This runs as a process of its own, so that reading half a million workers takes nothing from requests: neither
their time nor, once it is done, any memory but the index, which `index.Index` maps. It imports nothing of
ours, so it starts fast.

The index is a head (its length in 8 bytes, then JSON) and arrays of little-endian numbers and of bytes, each
at a multiple of 8.
"""

import hashlib
import io
import json
import os
import sys
import zlib
from array import array
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from datetime import date
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

STATUSES: Final = ("active", "inactive", "do_not_place")
TEXTS: Final = ("worker_id", "first_name", "last_name", "zip", "phone", "email")
COLUMNS: Final = (
    *TEXTS,
    "status",
    "city",
    "state",
    "date_of_birth",
    "roles",
    "certs",
    "blocked_clients",
    "assignments",
)  # in the order in which they are read
PARTED_BY: Final = "\0"
NO_DATE: Final = 2**31 - 1
EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
DAY_MIN: Final = date.min.toordinal() - EPOCH_DAY
DAY_MAX: Final = date.max.toordinal() - EPOCH_DAY
US_PER_DAY: Final = 86_400_000_000
UTC_US: Final = pa.timestamp("us", "UTC")
ALIGNED: Final = 8


class UnfitRoster(ValueError):
    """The file cannot serve as the roster; the message names the column and the reason."""


def compile_roster(data: bytes, out: BinaryIO) -> None:
    """Write the index of a Parquet file's bytes. Raises `UnfitRoster`."""
    with ThreadPoolExecutor(1) as reader:
        try:
            _compile(data, out, reader)
        except pa.ArrowException as error:
            raise UnfitRoster(f"the file cannot be read as Parquet ({type(error).__name__})") from error


def _compile(data: bytes, out: BinaryIO, reader: Executor) -> None:
    columns = _Columns(pq.ParquetFile(pa.BufferReader(data)), reader)
    writer = _Writer(out)
    writer.facts["sha256"] = hashlib.sha256(data).hexdigest()
    writer.facts["rows"] = columns.rows
    writer.facts["as_of"] = columns.as_of()
    _write_texts(columns, writer)
    status = _write_few("status", columns.strings("status", nullable=False), writer)
    if wrong := sorted(set(writer.tables["status"]) - set(STATUSES)):
        raise UnfitRoster(f"column `status` has {wrong[0]!r}; it may have {', '.join(STATUSES)}")
    places = _write_places(columns, writer)
    writer.numbers("born", "i", _days("date_of_birth", columns.array("date_of_birth")))
    roles = columns.lists("roles")
    writer.numbers("roles_at", "i", roles.offsets)
    role = _write_few("roles", _as_strings("roles", roles.values), writer)
    _write_candidates(roles, role, places, status, writer)
    _write_certificates(columns, writer)
    blocked = columns.lists("blocked_clients")
    writer.numbers("blocked_at", "i", blocked.offsets)
    _write_few("blocked", _as_strings("blocked_clients", blocked.values), writer)
    _write_assignments(columns, writer)
    writer.close()


# --- parts ------------------------------------------------------------------------------------


def _write_texts(columns: "_Columns", writer: "_Writer") -> None:
    """The texts of a worker as one, since whoever reads one of them reads most."""
    texts = [columns.strings(name, nullable=name != "worker_id") for name in TEXTS]
    for name, column in zip(TEXTS, texts, strict=True):
        if pc.any(pc.match_substring(column, PARTED_BY)).as_py():
            raise UnfitRoster(f"column `{name}` has a text with a NUL character")
    _check_ids(texts[0], *_write_checksums("ids", texts[0], writer))
    _write_checksums("emails", pc.ascii_lower(texts[-1]), writer)
    joined = pc.binary_join_element_wise(*texts, PARTED_BY)
    del texts
    writer.texts("texts", joined)


def _write_checksums(name: str, texts: Any, writer: "_Writer") -> tuple[Any, Any]:
    """The checksums of texts in their order, and the rows that they belong to; both are returned."""
    checksums = array("I", map(zlib.crc32, texts.cast(pa.binary()).to_pylist()))
    numbers = pa.Array.from_buffers(pa.uint32(), len(texts), [None, pa.py_buffer(checksums)])
    rows = pc.sort_indices(numbers).cast(pa.uint32())
    ordered = numbers.take(rows)
    writer.numbers(f"{name}_checksums", "I", ordered)
    writer.numbers(f"{name}_rows", "I", rows)
    return ordered, rows


def _check_ids(ids: Any, checksums: Any, rows: Any) -> None:
    """Raises where an id comes twice; only those that share a checksum, a few dozen, are compared."""
    if len(ids) < 2:
        return
    same = pc.equal(checksums.slice(1), checksums.slice(0, len(ids) - 1))
    seen: dict[str, int] = {}
    for at in pc.indices_nonzero(same).to_pylist():
        for row in (rows[at].as_py(), rows[at + 1].as_py()):
            text = ids[row].as_py()
            if seen.setdefault(text, row) != row:
                raise UnfitRoster(f"column `worker_id` has {text!r} twice; ids must be unique")


def _write_places(columns: "_Columns", writer: "_Writer") -> Any:
    """City and state as one number, since they are only ever used together."""
    city, state = columns.strings("city").dictionary_encode(), columns.strings("state").dictionary_encode()
    cities, states = city.dictionary.to_pylist(), state.dictionary.to_pylist()
    pairs = pc.add(
        pc.multiply(city.indices.cast(pa.int64()), max(1, len(states))), state.indices.cast(pa.int64())
    )
    unique = pairs.dictionary_encode()
    spelled = (divmod(pair, len(states)) for pair in unique.dictionary.to_pylist())
    writer.tables["places"] = [[cities[c], states[s]] for c, s in spelled]
    writer.numbers("places", "i", unique.indices)
    return unique.indices


def _write_candidates(roles: Any, role: Any, places: Any, status: Any, writer: "_Writer") -> None:
    """Rows of active workers by role and place: parallel arrays, in the order of a number made of both."""
    active = pa.array([text == "active" for text in writer.tables["status"]], pa.bool_())
    parents = pc.list_parent_indices(roles)
    placeable = pc.take(pc.take(active, status), parents)
    parents = parents.filter(placeable)
    numbers = pc.add(
        pc.multiply(role.filter(placeable).cast(pa.int64()), max(1, len(writer.tables["places"]))),
        pc.take(places, parents).cast(pa.int64()),
    )
    order = pc.sort_indices(
        pa.table({"key": numbers, "row": parents}), [("key", "ascending"), ("row", "ascending")]
    )
    writer.numbers("candidate_keys", "q", pc.take(numbers, order))
    writer.numbers("candidates", "I", pc.take(parents, order).cast(pa.uint32()))


def _write_certificates(columns: "_Columns", writer: "_Writer") -> None:
    certs = columns.lists("certs")
    writer.numbers("certs_at", "i", certs.offsets)
    code, expires = _members("certs", certs.values, ("code", "expires"))
    _write_few("certs", _as_strings("certs.code", code), writer)
    writer.numbers("cert_days", "i", _days("certs.expires", expires))


def _write_assignments(columns: "_Columns", writer: "_Writer") -> None:
    assignments = columns.lists("assignments")
    writer.numbers("assigned_at", "i", assignments.offsets)
    order_id, start, end = _members("assignments", assignments.values, ("order_id", "start", "end"))
    writer.texts("assigned_to", _as_strings("assignments.order_id", order_id))
    writer.numbers("starts", "q", _instants("assignments.start", start))
    writer.numbers("ends", "q", _instants("assignments.end", end))


def _write_few(name: str, column: Any, writer: "_Writer") -> Any:
    """A column of few distinct texts: the texts once, and a number for each row, which is returned."""
    encoded = column.dictionary_encode()
    writer.tables[name] = encoded.dictionary.to_pylist()
    writer.numbers(name, "i", encoded.indices)
    return encoded.indices


# --- the file ---------------------------------------------------------------------------------


class _Writer:
    """Writes arrays as they come; the head goes to the end, and its place to the very start."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._arrays: dict[str, tuple[str, int, int]] = {}
        self.tables: dict[str, list[Any]] = {}
        self.facts: dict[str, Any] = {}
        out.write(bytes(2 * ALIGNED))
        self._at = 2 * ALIGNED

    def numbers(self, name: str, code: str, column: Any) -> None:
        size = column.type.bit_width // 8
        assert not column.null_count
        assert size == array(code).itemsize
        data = memoryview(column.buffers()[1])[column.offset * size :] if len(column) else memoryview(b"")
        self._write(name, code, data[: len(column) * size])

    def texts(self, name: str, column: Any) -> None:
        _, offsets, data = column.buffers()
        count = len(column)
        places = memoryview(offsets)[column.offset * 4 : (column.offset + count + 1) * 4] if count else b""
        self._write(f"{name}_at", "i", memoryview(places))
        self._write(name, "B", memoryview(data) if data is not None else memoryview(b""))

    def _write(self, name: str, code: str, data: memoryview) -> None:
        self._arrays[name] = (code, self._at, data.nbytes)
        self._out.write(data)
        self._at += data.nbytes
        padding = -self._at % ALIGNED
        self._out.write(bytes(padding))
        self._at += padding

    def close(self) -> None:
        head = json.dumps({"facts": self.facts, "tables": self.tables, "arrays": self._arrays}).encode()
        self._out.write(head)
        self._out.seek(0)
        self._out.write(self._at.to_bytes(ALIGNED, "little") + len(head).to_bytes(ALIGNED, "little"))
        self._out.flush()


# --- columns ----------------------------------------------------------------------------------


class _Columns:
    """The file's columns, one after another: the next is read while one is worked on, and none further."""

    def __init__(self, file: Any, reader: Executor) -> None:
        self._file = file
        self._reader = reader
        self._names = set(file.schema_arrow.names)
        self._next: dict[str, Future[Any]] = {}
        self.rows: int = file.metadata.num_rows

    def as_of(self) -> str | None:
        """The day that the file itself names in its key-value metadata, if it does."""
        written = (self._file.schema_arrow.metadata or {}).get(b"as_of")
        if written is None:
            return None
        try:
            return date.fromisoformat(written.decode()).isoformat()
        except ValueError as error:
            raise UnfitRoster("the file's metadata has an `as_of` that is not an ISO date") from error

    def array(self, name: str) -> Any:
        if name not in self._names:
            raise UnfitRoster(f"column `{name}` is missing")
        reading = self._next.pop(name, None) or self._reader.submit(self._read, name)
        following = COLUMNS[COLUMNS.index(name) + 1 :][:1]
        self._next = {
            each: self._reader.submit(self._read, each) for each in following if each in self._names
        }
        return reading.result()

    def _read(self, name: str) -> Any:
        column = self._file.read(columns=[name], use_threads=False).column(0)
        return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)

    def strings(self, name: str, *, nullable: bool = True) -> Any:
        column = self.array(name)
        if not nullable and column.null_count:
            raise UnfitRoster(f"column `{name}` has {column.null_count} nulls; every worker needs a value")
        return _as_strings(name, column)

    def lists(self, name: str) -> Any:
        column = self.array(name)
        if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
            raise UnfitRoster(f"column `{name}` is {column.type}; expected a list")
        return column.cast(pa.list_(column.type.value_type))


def _as_strings(name: str, column: Any) -> Any:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise UnfitRoster(f"column `{name}` is {column.type}; expected string")
    texts = column.cast(pa.string())
    return texts.fill_null("") if texts.null_count else texts


def _members(name: str, column: Any, members: Sequence[str]) -> list[Any]:
    if not pa.types.is_struct(column.type):
        raise UnfitRoster(f"column `{name}` is a list of {column.type}; expected a list of struct")
    known = {field.name for field in column.type}
    if absent := [member for member in members if member not in known]:
        raise UnfitRoster(f"column `{name}.{absent[0]}` is missing")
    flat = dict(zip((field.name for field in column.type), column.flatten(), strict=True))
    return [flat[member] for member in members]


def _days(name: str, column: Any) -> Any:
    """Days since 1970; `NO_DATE` where there is none."""
    kind = column.type
    if not (pa.types.is_date(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise UnfitRoster(f"column `{name}` is {kind}; expected date32 or an ISO string")
    try:
        days = column.cast(pa.date32()).cast(pa.int32())
    except pa.ArrowInvalid as error:
        raise UnfitRoster(f"column `{name}` has a text that is not an ISO date") from error
    _check_range(name, days, DAY_MIN, DAY_MAX)
    return days.fill_null(NO_DATE) if days.null_count else days


def _instants(name: str, column: Any) -> Any:
    """Microseconds since 1970, UTC."""
    kind = column.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (text or (pa.types.is_timestamp(kind) and kind.tz is not None)):
        raise UnfitRoster(
            f"column `{name}` is {kind}; expected timestamp[us, UTC] or an ISO string with an offset"
        )
    if column.null_count:
        raise UnfitRoster(f"column `{name}` has {column.null_count} nulls; every assignment needs both times")
    try:
        instants = column.cast(UTC_US, safe=text).cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise UnfitRoster(f"column `{name}` has a text that is not an ISO time with an offset") from error
    _check_range(name, instants, DAY_MIN * US_PER_DAY, DAY_MAX * US_PER_DAY)
    return instants


def _check_range(name: str, numbers: Any, least: int, most: int) -> None:
    bounds = pc.min_max(numbers).as_py()
    if bounds["min"] is not None and not least <= bounds["min"] <= bounds["max"] <= most:
        raise UnfitRoster(f"column `{name}` has a value outside of the years 1 to 9999")


def _main(path: str, fd: int, nice: int) -> None:
    """Exits with 0 and the index in `fd`, or with a reason on standard output: 3 for a file that is at fault,
    4 where another time may be better (no space, no right to read).
    """
    os.nice(nice)
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        with open(path, "rb") as file, io.open(fd, "wb", closefd=False) as out:  # noqa: PTH123, UP020
            compile_roster(file.read(), out)
    except (UnfitRoster, OSError) as error:
        sys.stdout.write(str(error))
        raise SystemExit(3 if isinstance(error, UnfitRoster) else 4) from None


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
