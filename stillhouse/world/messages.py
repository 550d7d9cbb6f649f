"""Message drafts to workers and clients, half of them with one known defect."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Literal, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from stillhouse.world.catalogue import SHIFTS
from stillhouse.world.chance import stream
from stillhouse.world.records import AGENCY, Message, Spec
from stillhouse.world.roster import as_rows

_RECIPIENTS_MAX: Final = 2_000
_CLIENT_SHARE: Final = 0.2
_FIRST_CONTACT_SHARE: Final = 0.25
_SEGMENT, _SEGMENT_UNICODE = 160, 70
_ALLOWED_SITE: Final = "example.com"
_WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")

_CONTACTS: Final = (
    ("Joan Whitfield", "joan.whitfield"),
    ("Marcus Bell", "marcus.bell"),
    ("Teresa Lindqvist", "teresa.lindqvist"),
    ("Owen Castellano", "owen.castellano"),
)
_WORKER_SUBJECTS: Final = ("Your shift on {day}", "{day} in {city}: please confirm", "Schedule for {day}")
_CLIENT_SUBJECTS: Final = ("Your order for {day}", "{day} in {city}: who is coming")
_WORKER_MAIL: Final = (
    (
        "You are confirmed as {role} in {city}, {state} on {day} at {time}. Please arrive 15 minutes"
        " early and bring your badge. Your schedule is at https://portal.example.com/shifts."
    ),
    (
        "Can you work as {role} in {city}, {state} on {day}? The shift starts at {time}. Please"
        " answer this message by noon."
    ),
    (
        "Thank you for last week. The site in {city}, {state} has asked for you again on {day} at"
        " {time} as {role}. Accept at https://portal.example.com/accept."
    ),
)
_CLIENT_MAIL: Final = (
    "All seats of your order for {role} in {city}, {state} on {day} are filled. The team arrives at {time}.",
    (
        "Please confirm the gate and the supervisor for {day}: we are sending one {role} to {city},"
        " {state} at {time}."
    ),
)
_LETTERS: Final = {"worker": (_WORKER_SUBJECTS, _WORKER_MAIL), "client": (_CLIENT_SUBJECTS, _CLIENT_MAIL)}
_TEXTS: Final = (
    "Hi {first}, {agency}: can you work as {role} in {city} on {day} at {time}? Reply YES or NO.",
    "Hi {first}, reminder from {agency}: {day} {time}, {city}. Bring your badge. Reply C to confirm.",
    "Hi {first}, your shift in {city} starts {day} at {time}. Reply YES to confirm.",
    "Hi {first}, can you work {day} at {time}? Reply YES or NO.",
    "Hi {first}, please call the branch today.",
)
_FIRST_TEXTS: Final = (
    (
        "Hi {first}, this is {agency} in {city}. We have {role} shifts on {day}. Reply YES for"
        " details or STOP to opt out."
    ),
    "Hi {first}, {agency} here. Reply YES for shifts, STOP to opt out.",
    "Hi {first}, {agency} here. Reply STOP to opt out.",
)
_LONG: Final = " Park in the north lot, walk to gate four, and ask the guard for the site supervisor."
_TEST_CARDS: Final = ("4111 1111 1111 1111", "5555 5555 5555 4444", "3782 822463 10005")
_PLACEHOLDERS: Final = ("{{supervisor}}", "${supervisor}", "[SUPERVISOR NAME]", "<SUPERVISOR_NAME>")
_NO_ADDRESSES: Final = ("dispatch@@example.com", "dispatch.example.com")
_DISCRIMINATORY: Final = (
    "The client wants young men only.",
    "No women for this job, please.",
    "Recent college graduates only, nobody over 40.",
)
_PAY: Final = {
    "worker": "The client pays us a bill rate of ${rate}.50 an hour for you.",
    "client": "The worker's pay rate is ${rate}.50 an hour.",
}

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Draft:
    """A draft that is fine, with the recipient it is for and somebody else to mistake them for."""

    kind: Literal["email", "sms"]
    artifact: dict[str, Any]
    context: dict[str, Any]
    person: Row
    other: Row

    def with_sentence(self, sentence: str) -> dict[str, Any]:
        """The artifact with one more sentence; a text keeps only its greeting, to fit still."""
        body: str = self.artifact["body"]
        if self.kind == "sms":
            return {"body": f"{body.partition(',')[0]}, {sentence[0].lower()}{sentence[1:]}"}
        greeting, text, thanks = body.split("\n\n")
        return {"body": f"{greeting}\n\n{text} {sentence}\n\n{thanks}"}

    def with_other_name(self) -> dict[str, Any]:
        greeting, _, rest = self.artifact["body"].partition(",")
        return {"body": f"{greeting.split()[0]} {self.other['first_name']},{rest}"}


Defect: TypeAlias = Callable[[_Draft, Random], dict[str, Any]]
"""Returns the changed parts of the artifact."""

_CONTENT: Final[dict[str, Defect]] = {
    "content.placeholder": lambda draft, chance: draft.with_sentence(
        f"Ask for {chance.choice(_PLACEHOLDERS)}."
    ),
    # Area numbers from 773 up went to nobody before 2011.
    "content.pii_ssn": lambda draft, chance: draft.with_sentence(
        f"Your SSN: {chance.randint(773, 899)}-{chance.randint(10, 99)}-{chance.randint(1000, 9999)}."
    ),
    "content.pii_card": lambda draft, chance: draft.with_sentence(
        f"The travel card is {chance.choice(_TEST_CARDS)}."
    ),
    "content.pii_bank": lambda draft, chance: draft.with_sentence(
        f"Direct deposit: routing number 021000021, account number {chance.randint(10**9, 10**10 - 1)}."
    ),
    "content.pay_disclosure": lambda draft, chance: draft.with_sentence(
        _PAY[draft.context["audience"]].replace("{rate}", str(chance.randint(22, 48)))
    ),
    "content.url_not_allowed": lambda draft, chance: draft.with_sentence(
        f"Sign in at https://payroll-{chance.randint(10, 99)}.example.net/login."
    ),
    "content.discriminatory": lambda draft, chance: draft.with_sentence(chance.choice(_DISCRIMINATORY)),
}
_EMAIL: Final[dict[str, Defect]] = _CONTENT | {
    "email.address_invalid": lambda _, chance: {"cc": [chance.choice(_NO_ADDRESSES)]},
    "email.address_homograph": lambda _draft, _chance: {"cc": ["dispatch@ex\u0430mple.com"]},
    "email.recipient_mismatch": lambda draft, _: {"to": [draft.other["email"]]},
    "email.header_injection": lambda draft, chance: chance.choice(
        (
            {"subject": f"{draft.artifact['subject']}\r\nBcc: everyone@example.net"},
            {"headers": {"X-Campaign": "autumn\x0bBcc: everyone@example.net"}},
        )
    ),
    "email.subject_missing": lambda _, chance: {"subject": chance.choice(("", "   "))},
    "email.subject_too_long": lambda draft, _: {"subject": draft.artifact["subject"] + " - confirm" * 100},
    "email.body_missing": lambda _, chance: {"body": chance.choice(("", " \n "))},
    "email.name_mismatch": lambda draft, _: draft.with_other_name(),
}  # fmt: skip
_SMS: Final[dict[str, Defect]] = _CONTENT | {
    "sms.number_invalid": lambda draft, chance: {
        "to": chance.choice((draft.artifact["to"][:-2], "+10005550100"))
    },
    "sms.body_missing": lambda _, chance: {"body": chance.choice(("", "  "))},
    # The second is short enough for plain letters: the curly apostrophe halves the room.
    "sms.too_long": lambda draft, chance: draft.with_sentence(
        chance.choice((f"please read this first.{_LONG}{_LONG}", f"don’t be late.{_LONG}"))
    ),
    "sms.recipient_mismatch": lambda draft, _: {"to": draft.other["phone"]},
    "sms.name_mismatch": lambda draft, _: draft.with_other_name(),
    "sms.opted_out": lambda _draft, _chance: {},
    "sms.opt_out_missing": lambda _draft, _chance: {},
}
_CONTEXTS: Final[dict[str, dict[str, Any]]] = {
    "sms.opted_out": {"opted_out": True},
    "sms.opt_out_missing": {"first_contact": True},
}
"""Defects that lie in the circumstances: the context that makes an innocent draft wrong."""

DEFECTS: Final = (*(("email", code) for code in _EMAIL), *(("sms", code) for code in _SMS))
"""Every kind of draft with every defect it may have; they take turns."""


def drafts(spec: Spec, batch: pa.RecordBatch) -> tuple[Message, ...]:
    """Drafts to active workers of the batch: good and bad ones alternate, the bad go through `DEFECTS`."""
    chance = stream(spec.seed, "messages")
    people = _recipients(batch, chance)
    plain = [person for person in people if person["first_name"].isascii()]
    made = []
    for number in range(spec.messages):
        kind, code = DEFECTS[number // 2 % len(DEFECTS)]
        defect = code if number % 2 else None
        person = chance.choice(plain if defect else people)
        draft = _good(kind, person, _somebody_else(person, plain, chance), defect, chance)
        made.append(_spoiled(f"MSG-{number + 1:06d}", draft, defect, chance))
    return tuple(made)


def _recipients(batch: pa.RecordBatch, chance: Random) -> list[Row]:
    active = pc.indices_nonzero(pc.equal(batch["status"], "active")).to_pylist()
    chosen = sorted(chance.sample(active, min(len(active), _RECIPIENTS_MAX)))
    wanted = batch.select(["worker_id", "first_name", "roles", "city", "state", "phone", "email"])
    return as_rows(wanted.take(pa.array(chosen)))


def _somebody_else(person: Row, people: list[Row], chance: Random) -> Row:
    """A worker whose name and number cannot be taken for the person's."""
    initial = person["first_name"][0]
    others = [one for one in people if one["first_name"][0] != initial and one["phone"] != person["phone"]]
    return chance.choice(others)


def _good(kind: str, person: Row, other: Row, defect: str | None, chance: Random) -> _Draft:
    words = {
        "agency": AGENCY,
        "first": person["first_name"],
        "role": person["roles"][0],
        "city": person["city"],
        "state": person["state"],
        "day": chance.choice(_WEEKDAYS),
        "time": f"{chance.choice(SHIFTS).start:%H:%M}",
    }
    if kind == "sms":
        return _text(person, other, words, defect, chance)
    # Both of these defects concern the worker on the roster.
    about_worker = defect in {"email.recipient_mismatch", "email.name_mismatch"}
    if not about_worker and chance.random() < _CLIENT_SHARE:
        return _client_mail(person, other, words, chance)
    recipient = {"worker_id": person["worker_id"], "email": person["email"]}
    return _mail(words, recipient, (person, other), chance)


def _client_mail(person: Row, other: Row, words: dict[str, str], chance: Random) -> _Draft:
    name, mail = chance.choice(_CONTACTS)
    recipient = {"name": name, "email": f"{mail}@example.org"}
    return _mail(words | {"first": name.split()[0]}, recipient, (person, other), chance)


def _mail(
    words: dict[str, str],
    recipient: dict[str, str],
    people: tuple[Row, Row],
    chance: Random,
) -> _Draft:
    audience = "client" if "name" in recipient else "worker"
    subjects, bodies = _LETTERS[audience]
    body = chance.choice(bodies).format_map(words)
    artifact = {
        "to": [recipient["email"]],
        "from": "dispatch@example.com",
        "subject": chance.choice(subjects).format_map(words),
        "body": f"Hello {words['first']},\n\n{body}\n\nThank you,\n{AGENCY}",
    }
    context = {"recipient": recipient, "url_allowlist": [_ALLOWED_SITE], "audience": audience}
    return _Draft("email", artifact, context, *people)


def _text(person: Row, other: Row, words: dict[str, str], defect: str | None, chance: Random) -> _Draft:
    first_contact = defect is None and chance.random() < _FIRST_CONTACT_SHARE
    bodies = [text.format_map(words) for text in (_FIRST_TEXTS if first_contact else _TEXTS)]
    body = chance.choice([body for body in bodies if _fits(body)])
    context = {
        "recipient": {"worker_id": person["worker_id"]},
        "url_allowlist": [_ALLOWED_SITE],
        "audience": "worker",
        "segments_max": 1,
        "opted_out": False,
        "first_contact": first_contact,
    }
    return _Draft("sms", {"to": person["phone"], "body": body}, context, person, other)


def _fits(body: str) -> bool:
    """Whether one segment holds the text; any letter beyond ASCII is taken to force the short kind."""
    return len(body) <= (_SEGMENT if body.isascii() else _SEGMENT_UNICODE)


def _spoiled(number: str, draft: _Draft, defect: str | None, chance: Random) -> Message:
    artifact, context = draft.artifact, draft.context
    if defect is not None:
        change = (_EMAIL if draft.kind == "email" else _SMS)[defect]
        artifact = artifact | change(draft, chance)
        context = context | _CONTEXTS.get(defect, {})
    return Message(number, draft.kind, artifact, context, defect)
