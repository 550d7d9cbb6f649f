"""What may be wrong with a message besides its content: address, number, name, headers, length."""
# ruff: noqa: ARG001 - operators are called alike, whatever they need of it

from collections.abc import Callable

from tests.mutation.agency import NAMESAKES, Agency
from tests.mutation.cases import Case, segments
from tests.mutation.operator import Apply, Catalogue, Unfit, claim, claim_text

DEFECTS = Catalogue()


def _without(key: str, *values: str | None) -> Apply:
    def apply(agency: Agency, case: Case) -> None:
        claim_text(case, key)
        value = agency.rng.choice(values)
        case.artifact[key] = value
        if value is None:
            del case.artifact[key]
        if key == "subject":
            case.warnings = []
        if case.kind == "sms":
            case.context.pop("first_contact", None)
        case.errors.append((f"{case.kind}.{key}_missing", f"/{key}"))

    return apply


GREETED = (
    "Hi Gwendolyn,",
    "Dear Mr. Fitzpatrick,",
    "Hello Gwendolyn Fitzpatrick,",
    "Good morning Gwendolyn!",
)


def _other_name(agency: Agency, case: Case) -> None:
    claim(case, "greeting")
    if "recipient" not in case.context or "body" in case.touched:
        raise Unfit
    case.touched.add("+body")
    case.artifact["body"] = f"{agency.rng.choice(GREETED)} {_ungreeted(case.artifact['body'])}"
    case.errors.append((f"{case.kind}.name_mismatch", "/body"))


def _ungreeted(body: str) -> str:
    """The body without the greeting that cases open with."""
    opens = ("Hi ", "Dear ", "Hello ", "Good morning ", "Hey ")
    if not body.startswith(opens):
        return body
    ends = [at for mark in (",", "!", ":") if (at := body.find(mark)) > 0]
    return body[min(ends) + 1 :].lstrip() or "See you."


def _stranger(agency: Agency, case: Case) -> None:
    """The context names a worker whom the roster does not know."""
    claim(case, "to")
    claim(case, "recipient")
    if "worker_id" not in case.context.get("recipient", {}):
        raise Unfit
    if "+body" in case.touched or "body" in case.touched:
        raise Unfit
    case.touched |= {"body", "greeting"}
    case.context["recipient"] = {"worker_id": "W-999999"}
    case.errors.append((f"{case.kind}.recipient_mismatch", "/to"))


for _kind in ("email", "sms"):
    DEFECTS.add(_kind, f"{_kind}.body_missing", "blank", _without("body", "", "  ", "\n\t "))
    DEFECTS.add(_kind, f"{_kind}.body_missing", "absent", _without("body", None))
    DEFECTS.add(_kind, f"{_kind}.name_mismatch", "somebody else", _other_name)
    DEFECTS.add(_kind, f"{_kind}.recipient_mismatch", "unknown worker", _stranger)
DEFECTS.add("email", "email.subject_missing", "blank", _without("subject", "", "  ", " \t"))
DEFECTS.add("email", "email.subject_missing", "absent", _without("subject", None))


def _namesake(agency: Agency, case: Case) -> None:
    """The greeting names somebody whom a loose comparison takes for the recipient."""
    claim(case, "greeting")
    if "recipient" not in case.context or "body" in case.touched:
        raise Unfit
    case.touched.add("+body")
    pair = agency.rng.choice(NAMESAKES)
    real, said = pair if agency.rng.random() < 0.5 else pair[::-1]
    case.workers[0].first_name, case.workers[0].last_name = real.split(" ", 1)
    if "name" in case.context["recipient"]:
        case.context["recipient"]["name"] = real
    case.artifact["body"] = f"Dear {said},\n{_ungreeted(case.artifact['body'])}"
    case.errors.append((f"{case.kind}.name_mismatch", "/body"))


for _kind in ("email", "sms"):
    DEFECTS.add(_kind, f"{_kind}.name_mismatch", "somebody like them", _namesake)


def _address(code: str, *addresses: str) -> Apply:
    def apply(agency: Agency, case: Case) -> None:
        rng = agency.rng
        key = rng.choice(("to", "cc", "from"))
        claim(case, key)
        address = rng.choice(addresses)
        case.artifact[key] = address if key == "from" else [address]
        case.errors.append((code, f"/{key}" if key == "from" else f"/{key}/0"))

    return apply


ADDRESSES = {
    "no at": ("w0gmail.com", "w0 at gmail.com", "@gmail.com", "w0@", "w0"),
    "host": ("w0@localhost", "w0@gmail", "w0@gmail..com", "w0@-gmail.com", "w0@gmail-.com", "w0@.gmail.com"),
    "literal": ("w0@[10.0.0.1]", "w0@10.0.0.1", "w0@[IPv6:::1]"),
    "local": ('"w 0"@gmail.com', "w 0@gmail.com", ".w0@gmail.com", "w0.@gmail.com", "w..0@gmail.com"),
    "too long": ("x" * 65 + "@gmail.com", "a@" + "b" * 64 + ".com", "a@" + "b." * 130 + "com"),
    "two": ("w0@gmail.com, w1@gmail.com", "w0@gmail.com;w1@gmail.com", "w0@@gmail.com"),
    "underscore": ("w0@g_mail.com",),
}
HOMOGRAPHS = {
    "cyrillic": ("w0@gm\u0430il.com", "w0@\u0430\u0440\u0440\u04cf\u0435.com", "w\u043e@gmail.com"),
    "greek": ("w0@g\u03bfogle.com",),
    "punycode": ("w0@xn--gmil-63d.com",),
    "full-width": ("w0@\uff47mail.com",),
}
for _variant, _texts_of in ADDRESSES.items():
    DEFECTS.add("email", "email.address_invalid", _variant, _address("email.address_invalid", *_texts_of))
for _variant, _texts_of in HOMOGRAPHS.items():
    DEFECTS.add("email", "email.address_homograph", _variant, _address("email.address_homograph", *_texts_of))


def _nobody(agency: Agency, case: Case) -> None:
    claim(case, "to")
    case.artifact["to"] = []
    case.errors.append(("email.address_invalid", "/to"))


DEFECTS.add("email", "email.address_invalid", "nobody", _nobody)


def _mismatch(change: Callable[[str], str]) -> Apply:
    def apply(agency: Agency, case: Case) -> None:
        claim(case, "to")
        recipient = case.context.get("recipient", {})
        if not {"worker_id", "email"} & set(recipient):
            raise Unfit
        case.artifact["to"] = [change(case.workers[0].email)]
        case.errors.append(("email.recipient_mismatch", "/to/0"))

    return apply


def _another_too(agency: Agency, case: Case) -> None:
    claim(case, "to")
    if not {"worker_id", "email"} & set(case.context.get("recipient", {})):
        raise Unfit
    other = agency.hire()
    case.artifact["to"].append(other.email)
    case.errors.append(("email.recipient_mismatch", "/to/1"))


def _another_in_copy(agency: Agency, case: Case) -> None:
    claim(case, "cc")
    claim(case, "recipient")
    if "worker_id" not in case.context.get("recipient", {}):
        raise Unfit
    case.artifact["cc"] = ["desk@acme-staffing.com", agency.hire().email]
    case.errors.append(("email.recipient_mismatch", "/cc/1"))


for _variant, _change in {
    "another": lambda _: "somebody.else@gmail.com",
    "another host": lambda own: own.partition("@")[0] + "@gmail.co",
    "a letter more": lambda own: "x" + own,
    "without the tag": lambda own: own.replace("+shifts", "").replace("_", "-").replace(".", "", 1),
}.items():
    DEFECTS.add("email", "email.recipient_mismatch", _variant, _mismatch(_change))
DEFECTS.add("email", "email.recipient_mismatch", "two workers", _another_too)
DEFECTS.add("email", "email.recipient_mismatch", "another worker in copy", _another_in_copy)

CONTROLS = {
    "crlf": ("\r\nBcc: x@evil.io", "\r\n\r\n<html>"),
    "lf": ("\nBcc: x@evil.io",),
    "cr": ("\rBcc: x@evil.io",),
    "vertical tab": ("\x0bBcc: x",),
    "form feed": ("\x0cBcc: x",),
    "separators": ("\u2028Bcc: x", "\u2029Bcc: x", "\x85Bcc: x"),
    "bidi": ("\u202eyadnoM", "\u2066x\u2069", "\u202a", "\u200f", "\u061c"),
    "null": ("\x00", "\x1b[31m", "\x7f"),
    "information separators": ("\x1cx", "\x1dx", "\x1ex"),
}


def _injected(*tails: str) -> Apply:
    def apply(agency: Agency, case: Case) -> None:
        rng = agency.rng
        tail = rng.choice(tails)
        place = rng.choice(("subject", "header", "from"))
        if place == "subject":
            claim_text(case, "subject")
            case.artifact["subject"] = f"Shift {tail}"
            case.warnings = []
            case.errors.append(("email.header_injection", "/subject"))
        elif place == "header":
            claim(case, "headers")
            case.artifact["headers"] = {"X-A/B~": f"a{tail}"}
            case.errors.append(("email.header_injection", "/headers/X-A~1B~0"))
        else:
            claim(case, "from")
            case.artifact["from"] = f"Desk {tail} <desk@acme-staffing.com>"
            case.errors.append(("email.header_injection", "/from"))

    return apply


def _header(name: str, value: str = "x") -> Apply:
    def apply(agency: Agency, case: Case) -> None:
        claim(case, "headers")
        case.artifact["headers"] = {name: value}
        pointer = name.replace("~", "~0").replace("/", "~1")
        case.errors.append(("email.header_injection", f"/headers/{pointer}"))

    return apply


for _variant, _tails in CONTROLS.items():
    DEFECTS.add("email", "email.header_injection", _variant, _injected(*_tails))
DEFECTS.add("email", "email.header_injection", "blind copy", _header("Bcc", "x@evil.io"))
DEFECTS.add("email", "email.header_injection", "name with a line", _header("X-A\r\nBcc", "x@evil.io"))
DEFECTS.add("email", "email.header_injection", "name with a colon", _header("X-A: b"))
DEFECTS.add("email", "email.header_injection", "recipient again", _header("TO", "x@evil.io"))


def _long_subject(agency: Agency, case: Case) -> None:
    claim_text(case, "subject")
    case.artifact["subject"] = "s" * agency.rng.choice((999, 1_500))
    case.warnings = []
    case.errors.append(("email.subject_too_long", "/subject"))


DEFECTS.add("email", "email.subject_too_long", "above 998", _long_subject)


def _number(*numbers: str) -> Apply:
    def apply(agency: Agency, case: Case) -> None:
        claim(case, "to")
        case.artifact["to"] = agency.rng.choice(numbers)
        case.errors.append(("sms.number_invalid", "/to"))

    return apply


for _variant, _numbers in {
    "blank": ("", " "),
    "short": ("12345", "+1614555", "555-0100"),
    "long": ("+1614555010055", "6145550100614555"),
    "letters": ("+1 800 FLOWERS", "call me", "W-000001"),
    "extension": ("+1 614 555 0100 x5", "614-555-0100 ext. 9"),
    "two": ("+16145550100, +16145550101", "+16145550100 +16145550101"),
    "no such area": ("+10005550100", "+1 999 555 0100"),
}.items():
    DEFECTS.add("sms", "sms.number_invalid", _variant, _number(*_numbers))


def _wrong_number(agency: Agency, case: Case) -> None:
    claim(case, "to")
    if "worker_id" not in case.context.get("recipient", {}):
        raise Unfit
    case.artifact["to"] = agency.hire().phone
    case.errors.append(("sms.recipient_mismatch", "/to"))


DEFECTS.add("sms", "sms.recipient_mismatch", "another worker's", _wrong_number)


def _opted_out(agency: Agency, case: Case) -> None:
    claim(case, "opted_out")
    case.context["opted_out"] = True
    case.errors.append(("sms.opted_out", "/to"))


DEFECTS.add("sms", "sms.opted_out", "said so", _opted_out)


def _no_way_out(agency: Agency, case: Case) -> None:
    claim(case, "way out")
    if "body" in case.touched or "stop" in case.artifact["body"].lower().replace("non-stop bus stops", ""):
        raise Unfit
    case.touched.add("+body")
    case.context["first_contact"] = True
    case.artifact["body"] += agency.rng.choice((" Ok.", " Stop by at 6.", " The bus stop is near."))
    case.errors.append(("sms.opt_out_missing", "/body"))


DEFECTS.add("sms", "sms.opt_out_missing", "not said", _no_way_out)


def _too_long(tail: str, single: int) -> Apply:
    """One unit too many, for one segment or for several."""

    def apply(agency: Agency, case: Case) -> None:
        if "body" in case.touched:
            raise Unfit
        case.touched.add("body")
        body = case.artifact["body"] + tail
        limit = segments(body) if single == 0 else max(segments(body), agency.rng.choice((1, 2, 3)))
        while segments(body) <= limit:
            body += "a" if len(body) % 7 else " "
        case.artifact["body"] = body
        case.context["segments_max"] = limit
        if limit == 1 and agency.rng.random() < 0.8:
            del case.context["segments_max"]
        case.errors.append(("sms.too_long", "/body"))

    return apply


for _variant, _tail in {
    "one more": "",
    "euro": " €",
    "curly": " you’re",
    "emoji": " 😀",
    "brackets": " [1]",
    "tab": "\tok",
    "no-break space": "\u00a0ok",
}.items():
    DEFECTS.add("sms", "sms.too_long", _variant, _too_long(_tail, 1), last=True)


def _split_pair(agency: Agency, case: Case) -> None:
    """Fits by the number of its units, but a character of two would be cut."""
    claim_text(case, "body")
    whole = agency.rng.choice(("a" * 152 + "€" + "a" * 152, "ç" + "a" * 65 + "😀" + "a" * 66))
    case.artifact["body"] = whole
    case.context |= {"segments_max": 2, "first_contact": False}
    case.errors.append(("sms.too_long", "/body"))


DEFECTS.add("sms", "sms.too_long", "a character of two at the edge", _split_pair, last=True)
