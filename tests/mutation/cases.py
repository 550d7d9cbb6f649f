"""Valid artifacts with their contexts, hard ones among them: nothing in any of them is an error."""

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from tests.mutation.agency import (
    DAY,
    LAST_NAMES,
    MAIL_HOSTS,
    NICKNAMES,
    OTHER_ROLES,
    PLACES,
    ROLES,
    Agency,
    Shift,
    Worker,
    shift,
    spellings,
    written,
)

Json = dict[str, Any]
Found = tuple[str, str]
"""A code and the pointer at which it stands."""


@dataclass
class Case:
    """What is sent, and what must come back: no error and no review besides those expected."""

    kind: str
    artifact: Any
    context: Json
    errors: list[Found] = field(default_factory=list)
    reviews: list[Found] = field(default_factory=list)
    warnings: list[Found] = field(default_factory=list)
    operators: list[str] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)
    """Parts of the artifact that an operator has claimed for itself."""
    workers: list[Worker] = field(default_factory=list)
    shift: Shift | None = None

    @property
    def verdict(self) -> str:
        """As the contract draws it."""
        faulty = {path.split("/")[2] for _, path in self.errors if path.startswith("/fills/")}
        whole = any(not path.startswith("/fills/") for _, path in self.errors)
        if self.errors:
            parts = len(self.artifact["fills"]) if self.kind == "fill" and not whole else 0
            return "partially_accepted" if len(faulty) < parts else "rejected"
        return "needs_human_review" if self.reviews else "accepted"


# --- fill -------------------------------------------------------------------------------------

CERTS = ("OSHA-10", "OSHA-30", "CPR", "BLS", "FORK-1")
ORDER_IDS = ("O-{}", "{}", "JO/2026/{}", "ORD {}", "ord-{}-é")


def fill(agency: Agency) -> Case:
    """A proposal that fills its order with workers who just about may."""
    rng = agency.rng
    when, role, count = shift(rng), rng.choice(ROLES), rng.choice((1, 1, 2, 3, 3, 5, 8))
    order_id = rng.choice(ORDER_IDS).format(rng.randrange(100_000_000, 1_000_000_000))
    utc = rng.random() < 0.25
    order: Json = {
        "order_id": order_id,
        "client_id": rng.choice(("C-1", "C-10", "c-1", "100000001")),
        "role": rng.choice(role),
        "city": rng.choice(when.place.city),
        "state": rng.choice(when.place.state),
        "count": count,
        "start": written(rng, when.start, utc=utc),
        "end": written(rng, when.end, utc=utc),
    }
    if rng.random() < 0.7:
        order["required_certs"] = rng.sample(CERTS, rng.randrange(4))
    if rng.random() < 0.6:
        order["age_min"] = rng.choice((16, 18, 21))
    context: Json = {"order": order}
    if rng.random() < 0.3:
        context["as_of"] = rng.choice(("2020-01-01", "2031-12-31", "2026-11-22"))
    case = Case("fill", {"order_id": order_id, "fills": []}, context, shift=when)
    for _ in range(count):
        add_fill(agency, case, fit(agency, case))
    return case


def add_fill(agency: Agency, case: Case, worker: Worker) -> None:
    entry: Json = {"worker_id": worker.worker_id}
    if agency.rng.random() < 0.7:
        entry["name"] = spellings(agency.rng, worker)
    case.workers.append(worker)
    case.artifact["fills"].append(entry)


def fit(agency: Agency, case: Case, name: str | None = None) -> Worker:
    """Somebody who may work this order, by a hair where chance will have it."""
    rng, order, when = agency.rng, case.context["order"], case.shift
    assert when is not None
    spelled = next(role for role in ROLES if order["role"] in role)
    client = order["client_id"]
    near = [other for other in ("C-1", "C-10", "c-1", "C-1 ", "100000001", "C") if other != client]
    return agency.hire(
        name,
        city=rng.choice(when.place.city),
        state=rng.choice(when.place.state),
        roles=[*rng.sample(OTHER_ROLES, rng.randrange(3)), rng.choice(spelled)],
        date_of_birth=_birthday(rng, when, order.get("age_min", 16)),
        certs=_certificates(rng, when, order.get("required_certs", [])),
        blocked_clients=rng.sample(near, rng.randrange(3)),
        assignments=_bookings(rng, when, order["order_id"]),
    )


def _birthday(rng: random.Random, when: Shift, age: int) -> date:
    first = when.first_day
    if (first.month, first.day) == (2, 29):
        first = date(first.year, 2, 28)
    youngest = first.replace(year=first.year - age)
    return youngest - DAY * rng.choice((0, 0, 1, 400, 9_000))


def _certificates(rng: random.Random, when: Shift, codes: list[str]) -> list[tuple[str, date | None]]:
    held: list[tuple[str, date | None]] = []
    for code in codes:
        held.append((code, when.last_day + DAY * rng.choice((0, 0, 1, 300))))
        if rng.random() < 0.3:
            held.insert(rng.randrange(len(held) + 1), (code, when.first_day - DAY))
    if rng.random() < 0.3:
        held.append(("Food Handler", when.first_day - DAY * 100))
    return held


def _bookings(rng: random.Random, when: Shift, order_id: str) -> list[Any]:
    possible = [
        ("X-before", when.before(480), when.before(0)),
        ("X-after", when.after(0), when.after(600)),
        ("X-long-ago", when.before(100_000), when.before(99_000)),
        (order_id, when.before(60), when.after(60)),
    ]
    return rng.sample(possible, rng.randrange(4))


# --- texts ------------------------------------------------------------------------------------

HARMLESS = (
    "Your order 219384756 starts on Monday.",
    "Ref. 123456789, gate 4.",
    "Call 614-555-0123 or (614) 555-0199 with questions.",
    "Or call 1-800-555-0144, ext. 1234.",
    "The site is at 1200 W. 5th Ave., Columbus, OH 43212-1234.",
    "Meet Christian Young at door 9.",
    "The Christian Women's Center is next door.",
    "Please wear black pants only and steel-toed boots.",
    "You lift 40 lbs at most.",
    "The old entrance is closed.",
    "We save 50% so nothing is wasted; 100% sure!",
    "See items [1] and {2}; a < b is fine.",
    "Sizes XL and XXL are in stock.",
    "Shift 2026-11-02 22:00 to 2026-11-03 06:00.",
    "Work order 4000 1234 5678 9012 is yours.",
    "Ticket 1234567890123456 is closed.",
    "Invoice 2026110206 0000 was paid.",
    "Bring form I-9 and a photo id.",
    "It is to be done by 6 a.m. on 11/02.",
    "Write to shifts@acme-staffing.com any time.",
    "Parking is $5.00, 20% off with a badge.",
    "The non-stop bus stops on Young Street.",
    "PO 123-45-678 and lot 12-345-6789 go together.",
    "Batch 021000021 is on the shelf.",
    "Your account with us is open.",
    "The team is great - thanks, & see you!",
    "Temperature: -5 C; speed <= 5 mph.",
    "Room B_2, rack 12_34, 3x4 m.",
)
LONGER = (
    "Café Zürich and the Peña bakery are clients.",
    "Señor Núñez meets you; façade side.",
    "Items: 1) badge 2) boots\n\n- gloves\n- hat",
    "Tip: “quiet hours” run 10–12 … ask.",
    "Totals: 4,111.11 and 1,111,111.11 units.",
    "Codes 4111-1111-1111-1112 and 5555 5555 5555 4445 are samples of wrong ones.",
    "Numbers 078-05-1120 and 219-09-9999 are printed in advertisements.",
    "The order said:\r\n> thanks\r\n> see you",
    "Youngstown, Whitehall and Blacklick are near.",
)
TO_WORKER = ("Your pay rate is $18.50 per hour.", "You earn $148.00 for the shift.", "Pay: $21/hr, weekly.")
TO_CLIENT = (
    "The bill rate is $32.50 per hour.",
    "Invoice total: $4,111.11, due in 30 days.",
    "The price for 8 hours is $260.00.",
    "We bill $31.75 an hour, as agreed.",
)
LISTED = ["acme-staffing.com", "jobs.partner.co.uk"]
LINKS = (
    "See https://acme-staffing.com/shifts?id=219384756.",
    "(www.acme-staffing.com)",
    "Map: https://maps.acme-staffing.com:8443/a/b#c",
    "https://JOBS.partner.co.uk/x",
)
GREETINGS = (
    "Hi {first},",
    "Dear {name},",
    "Hello {first} {last},",
    "Good morning {first}!",
    "Hey {nick},",
    "Hi team,",
    "",
)
TITLED = ("Dear Mr. {last},", "Dear Ms. {last}:")


def greeting(rng: random.Random, worker: Worker) -> str:
    """An opening that means this worker, or nobody."""
    nick = rng.choice(NICKNAMES.get(worker.first_name, (worker.first_name,)))
    forms = GREETINGS + (TITLED if worker.last_name in LAST_NAMES else ())
    return rng.choice(forms).format(
        first=worker.first_name, last=worker.last_name, name=worker.name, nick=nick
    )


def _recipient(agency: Agency, case: Case) -> Worker:
    """Hires whom the message is for; the context names them, or does not."""
    rng = agency.rng
    worker = agency.hire()
    case.workers.append(worker)
    if (draw := rng.random()) < 0.55:
        case.context["recipient"] = {"worker_id": worker.worker_id}
    elif draw < 0.75:
        case.context["recipient"] = {"name": worker.name}
        if case.kind == "email":
            case.context["recipient"]["email"] = worker.email
    return worker


def _sentences(rng: random.Random, context: Json, most: int) -> list[str]:
    audience = rng.choice(("worker", "client", None))
    if audience is not None:
        context["audience"] = audience
    pool = list(HARMLESS)
    texts = rng.sample(pool, rng.randrange(1, most))
    if audience == "worker":
        texts.append(rng.choice(TO_WORKER))
    if audience == "client":
        texts.append(rng.choice(TO_CLIENT))
    if rng.random() < 0.4:
        context["url_allowlist"] = LISTED
        texts.append(rng.choice(LINKS))
    rng.shuffle(texts)
    return texts


# --- email ------------------------------------------------------------------------------------

SUBJECTS = (
    "Your shift on Monday",
    "Re: order 219384756",
    "Fwd: Re: Shift – Mr. Young",
    "Café Zürich: 50% of the crew is set",
    "Invoice $4,111.11 (PO 123-45-678)",
    "?",
    "sign your I-9 today",
)


def email(agency: Agency) -> Case:
    """A draft that may be sent."""
    rng = agency.rng
    case = Case("email", {}, {})
    worker = _recipient(agency, case)
    texts = _sentences(rng, case.context, 8) + rng.sample(LONGER, rng.randrange(4))
    address = rng.choice((worker.email, worker.email.swapcase(), f"{worker.first_name[0]} <{worker.email}>"))
    subject = rng.choice(SUBJECTS)
    if rng.random() < 0.2:
        subject = subject.ljust(rng.choice((77, 78)), "s")
    elif rng.random() < 0.1:
        subject = subject.ljust(rng.choice((79, 500, 998)), "s")
        case.warnings.append(("email.subject_too_long", "/subject"))
    body = rng.choice(("\n\n", "\r\n", " ")).join([greeting(rng, worker), *texts])
    case.artifact = {"to": [address], "subject": subject, "body": body.strip()}
    if "recipient" not in case.context and rng.random() < 0.4:
        case.artifact["to"] += [f"o'neil+x{rng.randrange(99)}@{rng.choice(MAIL_HOSTS)}", "l" * 64 + "@x1.io"]
    if rng.random() < 0.4:
        case.artifact["cc"] = rng.choice(([], ["Desk <desk@acme-staffing.com>"]))
    if rng.random() < 0.4:
        case.artifact["from"] = rng.choice(("shifts@acme-staffing.com", "Acme Shifts <no-reply@a.b.c-d.io>"))
    if rng.random() < 0.4:
        case.artifact["headers"] = {"Reply-To": "desk@acme-staffing.com", "X-Order": "219384756; a=b"}
    return case


# --- sms --------------------------------------------------------------------------------------

GSM = set(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
GSM_ESCAPED = set("^{}\\[~]|€\f")


def segments(text: str) -> int:
    """GSM 03.38 and 03.40 by hand: septets or UTF-16 units, no character cut in two."""
    if set(text) <= GSM | GSM_ESCAPED:
        costs, single, several = [1 + (char in GSM_ESCAPED) for char in text], 160, 153
    else:
        costs, single, several = [1 + (ord(char) > 0xFFFF) for char in text], 70, 67
    if sum(costs) <= single:
        return 1
    count = used = 0
    for cost in costs:
        count, used = (count + 1, cost) if not count or used + cost > several else (count, used + cost)
    return count


OPT_OUT = ("Reply STOP to opt out.", "Acme Staffing: text STOP to end", "Reply STOP to unsubscribe")
FOREIGN = ("+442079460958", "+49 30 901820", "+525555123456")


def sms(agency: Agency) -> Case:
    """A text message that may be sent."""
    rng = agency.rng
    case = Case("sms", {}, {})
    worker = _recipient(agency, case)
    number = worker.phone.removeprefix("+1")
    written_so = (
        worker.phone,
        number,
        f"({number[:3]}) {number[3:6]}-{number[6:]}",
        f"+1-{number[:3]}-{number[3:6]}-{number[6:]}",
        f"1 {number[:3]}.{number[3:6]}.{number[6:]}",
    )
    to = rng.choice(written_so)
    if "worker_id" not in case.context.get("recipient", {}) and rng.random() < 0.3:
        to = rng.choice(FOREIGN)
    parts = [greeting(rng, worker), *_sentences(rng, case.context, 3)]
    if rng.random() < 0.3:
        parts.append(rng.choice(LONGER[:4]))
    if rng.random() < 0.3:
        case.context["first_contact"] = True
        parts.append(rng.choice(OPT_OUT))
    elif rng.random() < 0.3:
        case.context |= {"first_contact": False, "opted_out": False}
    body = " ".join(part for part in parts if part)
    if rng.random() < 0.4:
        body = edge(rng, body)
    case.context["segments_max"] = segments(body)
    if case.context["segments_max"] == 1 and rng.random() < 0.8:
        del case.context["segments_max"]
    case.artifact = {"to": to, "body": body}
    return case


def edge(rng: random.Random, body: str) -> str:
    """The text, filled up to the last unit of its segments."""
    tail = rng.choice((" €", " {1}", " [1]", " 😀", " ñ", " ok"))
    count = segments(body + tail)
    while segments(body + " ." + tail) == count:
        body += " ." if segments(body + " .." + tail) > count else " .."
    return body + tail


# --- json_schema ------------------------------------------------------------------------------

Leaf = tuple[Any, Json]
LEAVES: tuple[Callable[[random.Random], Leaf], ...] = (
    lambda rng: (rng.randrange(-5, 5), {"type": "integer", "minimum": -5, "maximum": 5}),
    lambda rng: (rng.random(), {"type": "number", "exclusiveMaximum": 1}),
    lambda rng: (rng.choice(("a", "ÿ€😀", "")), {"type": "string", "maxLength": 3}),
    lambda rng: ("x" * rng.randrange(1, 9), {"type": "string", "pattern": "^(x+)+$"}),
    lambda rng: (rng.choice((True, None)), {"type": ["boolean", "null"]}),
    lambda rng: (rng.choice(("n", "s")), {"enum": ["n", "s", 3]}),
    lambda _: ({"k": 1}, {"const": {"k": 1}}),
    lambda rng: ([1] * rng.randrange(1, 3), {"type": "array", "minItems": 1, "items": {"const": 1}}),
)
KEYS = ("a", "b/c", "m~n", "", "ключ", "with space", 'quo"te', "0", "~1", "worker_id")


def json_schema(agency: Agency) -> Case:
    """A value, and a schema that it satisfies."""
    value, schema = _tree(agency.rng, 3)
    return Case("json_schema", value, {"schema": schema})


def _tree(rng: random.Random, depth: int) -> Leaf:
    made = {key: _branch(rng, depth) for key in rng.sample(KEYS, rng.randrange(1, 5))}
    schema = {
        "type": "object",
        "properties": {key: schema for key, (_, schema) in made.items()},
        "required": list(made),
        "additionalProperties": False,
    }
    return {key: value for key, (value, _) in made.items()}, schema


def _branch(rng: random.Random, depth: int) -> Leaf:
    if depth and rng.random() < 0.3:
        return _tree(rng, depth - 1)
    if depth and rng.random() < 0.2:
        value, schema = _branch(rng, depth - 1)
        return [copy.deepcopy(value) for _ in range(rng.randrange(1, 4))], {"type": "array", "items": schema}
    return rng.choice(LEAVES)(rng)


MAKERS: dict[str, Callable[[Agency], Case]] = {
    "fill": fill,
    "email": email,
    "sms": sms,
    "json_schema": json_schema,
}


def elsewhere(rng: random.Random, when: Shift) -> tuple[str, str]:
    """Another city and state than the shift's."""
    place = rng.choice([place for place in PLACES if place is not when.place])
    return place.city[0], place.state[0]
