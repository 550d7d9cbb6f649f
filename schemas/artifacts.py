"""What a staffing agency's agents work with: orders, workers, proposals, messages."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from schemas.base import Model


class Fill(Model):
    worker_id: str
    name: str | None = None


class FillProposal(Model):
    """Which workers an agent proposes for an order."""

    order_id: str
    fills: list[Fill]


class JobOrder(Model):
    """What a client asks for. `start` and `end` carry the site's offset; the shift is `[start, end)`."""

    order_id: str
    client_id: str
    role: str
    city: str
    state: str
    count: Annotated[int, Field(ge=1)]
    start: AwareDatetime
    end: AwareDatetime
    required_certs: list[str] = []
    age_min: int | None = None


class SmsDraft(Model):
    to: str
    body: str


class EmailDraft(Model):
    to: list[str]
    cc: list[str] | None = None
    from_: Annotated[str | None, Field(alias="from")] = None
    subject: str
    body: str
    headers: dict[str, str] | None = None


class Certificate(Model):
    code: str
    expires: str


class Assignment(Model):
    order_id: str
    start: datetime
    end: datetime


class Worker(Model):
    """A row of the roster."""

    worker_id: str
    first_name: str
    last_name: str
    status: Literal["active", "inactive", "do_not_place"]
    roles: list[str]
    city: str
    state: str
    zip: str
    phone: str
    email: str
    date_of_birth: str
    certs: list[Certificate]
    blocked_clients: list[str]
    assignments: list[Assignment]
