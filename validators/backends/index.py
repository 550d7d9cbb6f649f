"""A roster as an index file in memory: half a million workers without a Python object for each."""

import json
import mmap
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from heapq import merge
from typing import Any, BinaryIO, Final, cast
from zlib import crc32

from schemas.verdicts import RosterInfo
from validators.backends.roster import AssignmentFact, CertificateFact, Keys, Roster, WorkerFacts

NO_DATE: Final = 2**31 - 1
PARTED_BY: Final = b"\0"
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_DAY: Final = date(1970, 1, 1).toordinal()

Numbers = Sequence[int]


class Index:
    """A snapshot, mapped from a file that `compile.compile_roster` has written.

    Ids are found through their checksums: one search among numbers, whatever the number of workers.
    """

    def __init__(self, file: BinaryIO, *, as_of: str) -> None:
        """`as_of` is the date of a roster that does not name one itself. The file may be closed afterwards.

        Raises `OSError` for a file that cannot be mapped.
        """
        self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        at, size = (int.from_bytes(self._map[place : place + 8], "little") for place in (0, 8))
        head = json.loads(self._map[at : at + size])
        whole = memoryview(self._map)

        def numbers(name: str) -> Numbers:
            code, start, length = head["arrays"][name]
            return cast("Numbers", whole[start : start + length].cast(code)) if length else ()

        tables: dict[str, list[Any]] = head["tables"]
        facts = head["facts"]
        self.info = RosterInfo(sha256=facts["sha256"], as_of=facts["as_of"] or as_of, rows=facts["rows"])
        self._ids = numbers("ids_checksums"), numbers("ids_rows")
        self._emails = numbers("emails_checksums"), numbers("emails_rows")
        self._texts_at, self._texts = numbers("texts_at"), head["arrays"]["texts"][1]
        self._status_of, self._status = tables["status"], numbers("status")
        self.places: list[tuple[str, str]] = [(city, state) for city, state in tables["places"]]
        self._place = numbers("places")
        self._born = numbers("born")
        self.roles: list[str] = tables["roles"]
        self._roles_at, self._role = numbers("roles_at"), numbers("roles")
        self._client_of = tables["blocked"]
        self._blocked_at, self._blocked = numbers("blocked_at"), numbers("blocked")
        self._cert_of = tables["certs"]
        self._certs_at, self._cert, self._cert_day = (
            numbers("certs_at"),
            numbers("certs"),
            numbers("cert_days"),
        )
        self._assigned_at, self._starts, self._ends = (
            numbers("assigned_at"),
            numbers("starts"),
            numbers("ends"),
        )
        self._order_at, self._orders = numbers("assigned_to_at"), head["arrays"]["assigned_to"][1]
        self.candidate_keys, self.candidates = numbers("candidate_keys"), numbers("candidates")

    def keyed(self, keys: Keys) -> Roster:
        """The roster whose candidates are found by roles and places as `keys` writes them."""
        return KeyedIndex(self, keys)

    def find(self, worker_id: str) -> WorkerFacts | None:
        """The worker with exactly this id."""
        try:
            wanted = worker_id.encode()
        except UnicodeEncodeError:
            return None
        checksum = crc32(wanted)
        wanted += PARTED_BY
        for row in _with_checksum(self._ids, checksum):
            start = self._texts + self._texts_at[row]
            if self._map[start : start + len(wanted)] == wanted:
                return self.facts(row)
        return None

    def find_email(self, address: str) -> WorkerFacts | None:
        """The first worker with this address; ASCII letters count the same in either case."""
        try:
            wanted = address.encode().lower()
        except UnicodeEncodeError:
            return None
        if not wanted:
            return None
        for row in _with_checksum(self._emails, crc32(wanted)):
            facts = self.facts(row)
            if facts.email.encode().lower() == wanted:
                return facts
        return None

    def facts(self, row: int) -> WorkerFacts:
        """What the roster says in a row."""
        text = self._map[self._texts + self._texts_at[row] : self._texts + self._texts_at[row + 1]]
        worker_id, first_name, last_name, zip_code, phone, email = text.decode().split("\0")
        city, state = self.places[self._place[row]]
        born = self._born[row]
        roles, of = self._role, self.roles
        first, last = self._roles_at[row], self._roles_at[row + 1]
        return WorkerFacts(
            row,
            worker_id,
            first_name,
            last_name,
            self._status_of[self._status[row]],
            [of[roles[at]] for at in range(first, last)],
            city,
            state,
            phone,
            email,
            None if born == NO_DATE else date.fromordinal(EPOCH_DAY + born),
            self._certificates(row),
            self._clients(row),
            self._assignments(row),
            zip_code,
        )

    def _certificates(self, row: int) -> Sequence[CertificateFact]:
        first, last = self._certs_at[row], self._certs_at[row + 1]
        if first == last:
            return ()
        return [
            CertificateFact(
                self._cert_of[self._cert[at]],
                None if (day := self._cert_day[at]) == NO_DATE else date.fromordinal(EPOCH_DAY + day),
            )
            for at in range(first, last)
        ]

    def _clients(self, row: int) -> Sequence[str]:
        first, last = self._blocked_at[row], self._blocked_at[row + 1]
        return () if first == last else [self._client_of[self._blocked[at]] for at in range(first, last)]

    def _assignments(self, row: int) -> Sequence[AssignmentFact]:
        first, last = self._assigned_at[row], self._assigned_at[row + 1]
        if first == last:
            return ()
        mapped, orders, starts, ends = self._map, self._order_at, self._starts, self._ends
        before = self._orders + orders[first]
        facts = []
        for at in range(first, last):
            after = self._orders + orders[at + 1]
            start, end = EPOCH + timedelta(0, 0, starts[at]), EPOCH + timedelta(0, 0, ends[at])
            facts.append(AssignmentFact(mapped[before:after].decode(), start, end))
            before = after
        return facts


class KeyedIndex:
    """An index with the spellings of its roles and places brought to the form of one policy."""

    def __init__(self, index: Index, keys: Keys) -> None:
        self._index = index
        self.info = index.info
        self._roles = _grouped([keys.role(text) for text in index.roles])
        self._places = _grouped([keys.place(city, state) for city, state in index.places])

    def find(self, worker_id: str) -> WorkerFacts | None:
        """The worker with exactly this id."""
        return self._index.find(worker_id)

    def find_email(self, address: str) -> WorkerFacts | None:
        """The first worker with this address; ASCII letters count the same in either case."""
        return self._index.find_email(address)

    def candidates(self, role: str, place: str) -> Iterator[WorkerFacts]:
        """The active workers of a role and a place, in the file's order."""
        index = self._index
        keys = index.candidate_keys
        runs = []
        for role_id in self._roles.get(role, ()):
            for place_id in self._places.get(place, ()):
                key = role_id * len(index.places) + place_id
                first, last = bisect_left(keys, key), bisect_right(keys, key)
                if first < last:
                    runs.append(map(index.candidates.__getitem__, range(first, last)))
        before = -1
        for row in merge(*runs):
            if row != before:  # two spellings of one role are one candidate
                yield index.facts(row)
            before = row


def _with_checksum(checksums: tuple[Numbers, Numbers], wanted: int) -> Sequence[int]:
    """The rows with a checksum: nearly always none or one."""
    ordered, rows = checksums
    first = last = bisect_left(ordered, wanted)
    while last < len(ordered) and ordered[last] == wanted:
        last += 1
    return rows[first:last]


def _grouped(names: Sequence[str]) -> dict[str, list[int]]:
    """For each name, where it stands."""
    groups: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        groups.setdefault(name, []).append(number)
    return groups
