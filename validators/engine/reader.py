"""Whom a message is meant for, and whether it greets them."""

from dataclasses import dataclass

from schemas.base import JsonObject
from schemas.verdicts import MessageContext, Recipient
from services.errors import InvalidRequest
from validators.backends import Roster, WorkerFacts
from validators.engine.content import Audience, Reading
from validators.engine.greeting import Greeting, GreetingFinder
from validators.engine.names import NameMatcher, Person
from validators.engine.personal import holds_personal
from validators.engine.policy import Policy
from validators.engine.text import mask
from validators.engine.validator import RosterNeeded
from validators.engine.view import View


@dataclass(frozen=True, slots=True)
class Reader:
    """What the context says of the recipient. `named`: by an id of the roster, which `worker` answers to."""

    named: bool = False
    worker: WorkerFacts | None = None
    person: Person | None = None
    email: str | None = None
    roster: Roster | None = None

    @property
    def evidence(self) -> JsonObject | None:
        if self.worker is None:
            return {"row": None} if self.named else None
        return {"row": self.worker.row, "name": mask(self.worker.name)}


def reader_of(recipient: Recipient | None, roster: RosterNeeded) -> Reader:
    """Raises `InvalidRequest` for a recipient without any name, and what `roster` raises if one is needed."""
    if recipient is None:
        return Reader()
    if recipient.worker_id is not None:
        snapshot = roster()
        worker = snapshot.find(recipient.worker_id)
        person = Person.of(worker.first_name, worker.last_name) if worker else None
        return Reader(
            named=True, worker=worker, person=person, email=worker.email if worker else None, roster=snapshot
        )
    if recipient.name is None and recipient.email is None:
        raise InvalidRequest(
            "`context.recipient` names nobody; give a `worker_id`, or a `name` or an `email`",
            param="context.recipient",
        )
    person = Person.of_full(recipient.name) if recipient.name else None
    return Reader(person=person, email=recipient.email)


def reading_of(context: MessageContext, reader: Reader) -> Reading:
    """For whom the words are: the audience that the context names, or a worker where it names one by id."""
    audience: Audience | None = context.audience or ("worker" if reader.named else None)
    listed = context.url_allowlist
    return Reading(audience, None if listed is None else tuple(listed))


class Salutation:
    """Finds greetings to the wrong person."""

    def __init__(self, policy: Policy) -> None:
        self._greetings = GreetingFinder(policy.file.greetings, policy.nicknames.keys())
        self._names = NameMatcher(policy.nicknames)

    def wrong(self, body: str, reader: Reader) -> Greeting | None:
        """The greeting of `body` where it names somebody else than the reader."""
        if reader.person is None or (greeting := self._greetings.find(body)) is None:
            return None
        fits = self._names.greets(greeting.name, reader.person, titled=greeting.titled)
        return None if fits else greeting


def replacement(path: str, text: str) -> JsonObject | None:
    """The fix that puts `text` in place of a whole text; None where it would repeat personal data."""
    return None if holds_personal(View(text).text) else {"op": "replace", "path": path, "value": text}


def mend(body: str, greeting: Greeting, reader: Reader) -> str | None:
    """The text greeting its reader by given name; None where none is known."""
    given = " ".join(word.capitalize() for word in reader.person.given) if reader.person else ""
    first = reader.worker.first_name if reader.worker else given
    start, end = greeting.replaced
    return f"{body[:start]}{first}{body[end:]}" if first else None
