"""What rules ask of a roster, and a small one in memory for tests."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple, Protocol

from schemas.verdicts import RosterInfo


class BrokenRoster(ValueError):
    """The file cannot serve as the roster; the message names the column and the reason."""


class CertificateFact(NamedTuple):
    """`expires` is the last day on which it holds; None means that it does not run out."""

    code: str
    expires: date | None


class AssignmentFact(NamedTuple):
    """`[start, end)`, in UTC."""

    order_id: str
    start: datetime
    end: datetime


class WorkerFacts(NamedTuple):
    """One row of the roster. `row` counts from 0."""

    row: int
    worker_id: str
    first_name: str
    last_name: str
    status: str
    roles: Sequence[str]
    city: str
    state: str
    phone: str
    email: str
    date_of_birth: date | None
    certs: Sequence[CertificateFact] = ()
    blocked_clients: Sequence[str] = ()
    assignments: Sequence[AssignmentFact] = ()
    zip: str = ""

    @property
    def name(self) -> str:
        return f"{self.first_name} {self.last_name}".strip()


class Keys(Protocol):
    """Brings roles and places to the form in which they are compared."""

    def role(self, text: str, /) -> str: ...

    def place(self, city: str, state: str, /) -> str: ...


class Roster(Protocol):
    """One snapshot of the workers; it never changes."""

    @property
    def info(self) -> RosterInfo: ...

    def find(self, worker_id: str) -> WorkerFacts | None:
        """The worker with exactly this id."""
        ...

    def find_email(self, address: str) -> WorkerFacts | None:
        """The first worker with this address; ASCII letters count the same in either case."""
        ...

    def candidates(self, role: str, place: str) -> Iterator[WorkerFacts]:
        """The active workers of a role and a place, both as `Keys` writes them, in the file's order."""
        ...


class Snapshot(Protocol):
    """A roster before it is known how roles and places are compared."""

    def keyed(self, keys: Keys, /) -> Roster: ...


class RosterSource(Protocol):
    """Has the snapshot that counts now, or says why there is none (or no newer one)."""

    @property
    def current(self) -> Snapshot | None: ...

    @property
    def problem(self) -> str | None: ...

    def look(self) -> None:
        """Take up a newer snapshot, if there is one. Called from a thread; may take seconds."""
        ...


class FakeRoster:
    """A roster of a few workers, for tests."""

    def __init__(self, workers: Iterable[WorkerFacts], keys: Keys) -> None:
        self._workers = {worker.worker_id: worker for worker in workers}
        self._keys = keys
        self.info = RosterInfo(sha256="0" * 64, as_of="2026-01-01", rows=len(self._workers))

    def keyed(self, keys: Keys) -> "FakeRoster":
        return FakeRoster(self._workers.values(), keys)

    def find(self, worker_id: str) -> WorkerFacts | None:
        return self._workers.get(worker_id)

    def find_email(self, address: str) -> WorkerFacts | None:
        wanted = address.encode(errors="surrogatepass").lower()
        workers = self._workers.values()
        return next((each for each in workers if wanted and each.email.encode().lower() == wanted), None)

    def candidates(self, role: str, place: str) -> Iterator[WorkerFacts]:
        for worker in self._workers.values():
            here = self._keys.place(worker.city, worker.state) == place
            if worker.status == "active" and here and role in map(self._keys.role, worker.roles):
                yield worker


@dataclass(frozen=True, slots=True)
class FixedRoster:
    """A source whose snapshot stays the same."""

    current: Snapshot | None = None
    problem: str | None = None

    def look(self) -> None:
        """There is never a newer one."""
