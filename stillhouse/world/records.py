"""What a world is made from, with the records that no daemon has a shape for."""

from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final, Literal

from schemas.artifacts import JobOrder

SEED_MAX: Final = 2**53 - 1
WORKERS_MIN: Final = 50
WORKERS_MAX: Final = 899_999
ORDERS_MAX: Final = 899_999
NOTES_PER_ROLE_MAX: Final = 10_000
MESSAGES_MAX: Final = 1_000_000
AGENCY: Final = "Northgate Staffing"


@dataclass(frozen=True, slots=True)
class Spec:
    """What to generate. Two equal specs give the same bytes.

    `workers`, `orders` and `messages` are numbers of records, `notes_per_role` the number of playbook notes
    each role gets, `as_of` the day the roster speaks for. Raises `ValueError` for a number out of bounds.
    """

    seed: int = 7
    workers: int = 5_000
    orders: int = 200
    as_of: date = field(default=date(2026, 10, 26))
    notes_per_role: int = 12
    messages: int = 240

    def __post_init__(self) -> None:
        bounds = (
            ("seed", self.seed, 0, SEED_MAX),
            ("workers", self.workers, WORKERS_MIN, WORKERS_MAX),
            ("orders", self.orders, 1, ORDERS_MAX),
            ("notes_per_role", self.notes_per_role, 0, NOTES_PER_ROLE_MAX),
            ("messages", self.messages, 0, MESSAGES_MAX),
            ("the year of as_of", self.as_of.year, 1970, 2200),
        )
        for name, value, low, high in bounds:
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}; it may be {low} to {high}")


@dataclass(frozen=True, slots=True)
class Note:
    """A note on a past fill. Notes of one `group` differ only in the words that belong to their role."""

    id: str
    group: str
    role: str
    city: str
    state: str
    client_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Message:
    """A draft that can be posted for validation as it is: `kind`, `artifact` and `context`.

    `defect` is the finding code of the one defect that was put in, or None for a draft that is fine.
    """

    id: str
    kind: Literal["email", "sms"]
    artifact: dict[str, Any]
    context: dict[str, Any]
    defect: str | None


@dataclass(frozen=True, slots=True)
class Trap:
    """A worker who looks right for the demo order but is not: the finding code says why."""

    worker_id: str
    code: str
    why: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """The demo's job order, some workers who may fill it and some who are tempting and may not."""

    order: JobOrder
    valid: tuple[str, ...]
    invalid: tuple[Trap, ...]
