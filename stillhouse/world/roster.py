"""The workers, drawn column by column so that half a million of them take seconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stillhouse.world.catalogue import CERTS, ROLES, SHIFTS
from stillhouse.world.chance import Bools, Ints, array_stream, day_number
from stillhouse.world.names import Pool, mail_part, pools
from stillhouse.world.orders import CLIENTS
from stillhouse.world.places import markets, phone_numbers, postcodes
from stillhouse.world.records import Spec

FIRST_WORKER: Final = 100_001
BATCH_ROWS: Final = 50_000
"""Rows drawn, and written as one row group, at a time: bounds the memory whatever the roster's size."""

SCHEMA: Final = pa.schema(
    [
        ("worker_id", pa.string()),
        ("first_name", pa.string()),
        ("last_name", pa.string()),
        ("status", pa.string()),
        ("roles", pa.list_(pa.string())),
        ("city", pa.string()),
        ("state", pa.string()),
        ("zip", pa.string()),
        ("phone", pa.string()),
        ("email", pa.string()),
        ("date_of_birth", pa.date32()),
        ("certs", pa.list_(pa.struct([("code", pa.string()), ("expires", pa.date32())]))),
        ("blocked_clients", pa.list_(pa.string())),
        (
            "assignments",
            pa.list_(
                pa.struct(
                    [
                        ("order_id", pa.string()),
                        ("start", pa.timestamp("us", tz="UTC")),
                        ("end", pa.timestamp("us", tz="UTC")),
                    ]
                )
            ),
        ),
    ]
)

_STATUSES: Final = ("active", "inactive", "do_not_place")
_STATUS_SHARES: Final = (0.86, 0.11, 0.03)
_MAIL_DOMAINS: Final = ("example.com", "example.net", "example.org")
_COMMON: Final = 1.7
"""Exponent that makes the early names of a pool common, so that some people share a full name."""

_MIXED_HERITAGE: Final = 0.12
_OTHER_ROLES: Final = (0.35, 0.12)
"""Chances of a second and of a third role."""

_CERT_MISSING, _CERT_EXPIRED, _CERT_SPARE = 0.04, 0.08, 0.01
_BLOCKED: Final = (0.03, 0.005)
_AGE_MIN, _AGE_YOUNG, _AGE_MAX = 16.2, 18.0, 68.0
_YOUNG: Final = 0.015
_YEAR_DAYS: Final = 365.25

_WINDOWS: Final = ((-70, -40), (-34, -10), (-2, 16))
"""Days from `as_of` on which a past, a recent and a coming job may start; apart, so none overlap."""

_BOOKED: Final = (0.45, 0.5, 0.4)
_LENGTHS_DAYS: Final = (1, 5)
_LONG_JOB: Final = 0.25
_FILLED_ORDER: Final = 20_000_000
"""Filled orders have eight digits, open ones six."""


@dataclass(frozen=True, slots=True)
class _People:
    """The drawn choices of one batch, as indexes and numbers."""

    status: Ints
    city: Ints
    roles: Ints  # n x 3, the first always meant
    has_role: Bools  # n x 3


class Roster:
    """All workers of a world, batch by batch; any batch can be drawn without the ones before it."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._cities = markets(spec.workers)
        states = sorted({city.state for city in self._cities})
        self._state_of_city = np.array([states.index(city.state) for city in self._cities])
        self._phones = [phone_numbers(spec.seed, state) for state in states]
        self._zips = postcodes(spec.seed, self._cities)
        self._cert_codes = sorted(CERTS)
        self._names = _NameTables(pools(spec.seed))

    @property
    def batches(self) -> int:
        """How many batches there are."""
        return -(-self._spec.workers // BATCH_ROWS)

    def batch(self, number: int) -> pa.RecordBatch:
        """The workers of one batch, at most `BATCH_ROWS`, in the order of their ids."""
        first_row = number * BATCH_ROWS
        rows = min(BATCH_ROWS, self._spec.workers - first_row)
        chance = array_stream(self._spec.seed, number)
        people = self._draw_people(chance, rows)
        numbers = pa.array(np.arange(FIRST_WORKER + first_row, FIRST_WORKER + first_row + rows)).cast(
            pa.string()
        )
        first, last, mail = self._names.draw(chance, rows)
        domain = _take(_MAIL_DOMAINS, chance.integers(len(_MAIL_DOMAINS), size=rows))
        zips = [len(codes) for codes in self._zips]
        columns = [
            pc.binary_join_element_wise("W", numbers, "-"),
            first,
            last,
            _take(_STATUSES, people.status),
            _lists(people.has_role, _take([role.name for role in ROLES], people.roles[people.has_role])),
            _take([city.name for city in self._cities], people.city),
            _take([city.state for city in self._cities], people.city),
            _take(
                [code for codes in self._zips for code in codes],
                _offsets(zips)[people.city] + _below(chance, np.array(zips)[people.city]),
            ),
            self._draw_phones(people.city),
            pc.binary_join_element_wise(pc.binary_join_element_wise(mail, numbers, "."), domain, "@"),
            self._draw_births(chance, rows),
            self._draw_certs(chance, people),
            self._draw_blocks(chance, rows),
            self._draw_assignments(chance, people),
        ]
        return pa.RecordBatch.from_arrays(
            [column.cast(field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
        )

    def _draw_people(self, chance: np.random.Generator, rows: int) -> _People:
        weights = np.array([role.weight for role in ROLES], dtype=np.float64)
        roles = chance.choice(len(ROLES), size=(rows, 3), p=weights / weights.sum())
        has_role = np.ones((rows, 3), dtype=np.bool_)
        has_role[:, 1:] = chance.random((rows, 2)) < _OTHER_ROLES
        has_role[:, 1] &= roles[:, 1] != roles[:, 0]
        has_role[:, 2] &= (roles[:, 2] != roles[:, 0]) & (roles[:, 2] != roles[:, 1])
        shares = np.array([city.share for city in self._cities])
        return _People(
            status=chance.choice(len(_STATUSES), size=rows, p=_STATUS_SHARES),
            city=chance.choice(len(shares), size=rows, p=shares / shares.sum()),
            roles=roles,
            has_role=has_role,
        )

    def _draw_phones(self, city: Ints) -> pa.Array:
        """Numbers of the worker's state, then of others (people move), all different until none is left."""
        state = self._state_of_city[city]
        order = np.argsort(state, kind="stable")
        counts = np.bincount(state, minlength=len(self._phones))
        rank = np.empty(len(state), dtype=np.int64)
        rank[order] = np.arange(len(state)) - np.repeat(_offsets(counts), counts)
        capacity = np.array([len(numbers) for numbers in self._phones])
        pick = _offsets(capacity)[state] + rank % capacity[state]
        over = rank >= capacity[state]
        spare = np.setdiff1d(np.arange(capacity.sum()), pick[~over])
        if len(spare):
            pick[over] = spare[np.arange(over.sum()) % len(spare)]
        return _take([number for numbers in self._phones for number in numbers], pick)

    def _draw_births(self, chance: np.random.Generator, rows: int) -> pa.Array:
        age = chance.uniform(_AGE_YOUNG, _AGE_MAX, rows)
        young = chance.random(rows) < _YOUNG
        age[young] = chance.uniform(_AGE_MIN, _AGE_YOUNG, int(young.sum()))
        return _dates(day_number(self._spec.as_of) - np.floor(age * _YEAR_DAYS).astype(np.int64))

    def _draw_certs(self, chance: np.random.Generator, people: _People) -> pa.Array:
        codes = self._cert_codes
        needs = np.array([[code in role.certs for code in codes] for role in ROLES])
        wanted = (needs[people.roles] & people.has_role[:, :, None]).any(axis=1)
        shape = wanted.shape
        held = (wanted & (chance.random(shape) >= _CERT_MISSING)) | (chance.random(shape) < _CERT_SPARE)
        _, code = np.nonzero(held)
        days_valid = np.array([int(CERTS[name][1] * _YEAR_DAYS) for name in codes])[code]
        expired = chance.random(len(code)) < _CERT_EXPIRED
        days = np.where(expired, -1 - chance.integers(540, size=len(code)), _below(chance, days_valid))
        expires = _dates(day_number(self._spec.as_of) + days)
        return _lists(held, pa.StructArray.from_arrays([_take(codes, code), expires], ["code", "expires"]))

    def _draw_blocks(self, chance: np.random.Generator, rows: int) -> pa.Array:
        client = chance.integers(len(CLIENTS), size=(rows, 2))
        blocked = chance.random((rows, 2)) < _BLOCKED
        blocked[:, 1] &= client[:, 0] != client[:, 1]
        return _lists(blocked, _take(CLIENTS, client[blocked]))

    def _draw_assignments(self, chance: np.random.Generator, people: _People) -> pa.Array:
        """Past, recent and coming jobs in the worker's own city and first role, never overlapping."""
        rows = len(people.city)
        booked = chance.random((rows, len(_WINDOWS))) < _BOOKED
        booked[:, -1] &= people.status == _STATUSES.index("active")
        low, high = (np.array(bounds) for bounds in zip(*_WINDOWS, strict=True))
        day = (low + _below(chance, np.broadcast_to(high - low + 1, booked.shape)))[booked] - _WINDOWS[0][0]
        length = (chance.random(booked.shape) < _LONG_JOB)[booked].astype(np.int64)
        city, role = (
            np.broadcast_to(one[:, None], booked.shape)[booked] for one in (people.city, people.roles[:, 0])
        )
        kinds = [len(kind.shifts) for kind in ROLES]
        shift_of_kind = np.array([shift for kind in ROLES for shift in kind.shifts])
        shift = shift_of_kind[_offsets(kinds)[role] + _below(chance, np.array(kinds)[role])]
        start, end = (bound[self._zone_of_city[city], day, shift, length] for bound in self._calendar)
        sizes = (len(self._cities), len(ROLES), *self._calendar[0].shape[1:])
        order = _FILLED_ORDER + np.ravel_multi_index((city, role, day, shift, length), sizes)
        ids = pc.binary_join_element_wise("JO", pa.array(order).cast(pa.string()), "-")
        times = (pa.array(bound, pa.timestamp("us", tz="UTC")) for bound in (start, end))
        return _lists(booked, pa.StructArray.from_arrays([ids, *times], ["order_id", "start", "end"]))

    @cached_property
    def _zones(self) -> list[str]:
        return sorted({city.zone.key for city in self._cities})

    @cached_property
    def _zone_of_city(self) -> Ints:
        return np.array([self._zones.index(city.zone.key) for city in self._cities])

    @cached_property
    def _calendar(self) -> tuple[Ints, Ints]:
        """When each shift starts and ends, in µs since 1970 UTC: zone x day x shift x length."""
        first, last = _WINDOWS[0][0], _WINDOWS[-1][1]
        moments = [
            [
                [
                    [
                        shift.interval(self._spec.as_of + timedelta(days=day), length, ZoneInfo(zone))
                        for length in _LENGTHS_DAYS
                    ]
                    for shift in SHIFTS
                ]
                for day in range(first, last + 1)
            ]
            for zone in self._zones
        ]
        table = np.array(
            [[[[[_micros(start), _micros(end)] for start, end in c] for c in b] for b in a] for a in moments]
        )
        return table[..., 0], table[..., 1]


class _NameTables:
    """The name pools side by side, so that a name is one index."""

    def __init__(self, made: Sequence[Pool]) -> None:
        self._shares = np.array([pool.share for pool in made])
        self._first = [name for pool in made for name in pool.first]
        self._last = [name for pool in made for name in pool.last]
        self._first_mail = [mail_part(name) for name in self._first]
        self._last_mail = [mail_part(name) for name in self._last]
        self._first_sizes = np.array([len(pool.first) for pool in made])
        self._last_sizes = np.array([len(pool.last) for pool in made])

    def draw(self, chance: np.random.Generator, rows: int) -> tuple[pa.Array, pa.Array, pa.Array]:
        """First names, last names and the `first.last` of the e-mail address."""
        heritage = chance.choice(len(self._shares), size=rows, p=self._shares)
        other = chance.choice(len(self._shares), size=rows, p=self._shares)
        family = np.where(chance.random(rows) < _MIXED_HERITAGE, other, heritage)
        first = _offsets(self._first_sizes)[heritage] + _skewed(chance, self._first_sizes[heritage])
        last = _offsets(self._last_sizes)[family] + _skewed(chance, self._last_sizes[family])
        mail = pc.binary_join_element_wise(_take(self._first_mail, first), _take(self._last_mail, last), ".")
        return _take(self._first, first), _take(self._last, last), mail


def _micros(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000


def _offsets(sizes: Sequence[int] | Ints) -> Ints:
    """Where each part starts when parts of these sizes lie one after the other."""
    return np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(np.int64)


def _below(chance: np.random.Generator, bounds: Ints) -> Ints:
    return np.floor(chance.random(bounds.shape) * bounds).astype(np.int64)


def _skewed(chance: np.random.Generator, bounds: Ints) -> Ints:
    return np.floor(chance.random(bounds.shape) ** _COMMON * bounds).astype(np.int64)


def _take(values: Sequence[str], index: Ints) -> pa.Array:
    return pa.array(values, pa.string()).take(pa.array(index))


def _dates(days: Ints) -> pa.Array:
    return pa.array(days.astype(np.int32)).cast(pa.date32())


def _lists(present: Bools, items: pa.Array) -> pa.Array:
    """One list a row: `items` are those of the True cells, row by row."""
    ends = np.concatenate(([0], np.cumsum(present.sum(axis=1)))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), items)


def as_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """A batch as plain dictionaries."""
    rows: list[dict[str, Any]] = batch.to_pylist()
    return rows
