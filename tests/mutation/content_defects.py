"""What no text to a person may hold: left-overs, personal data, money, links, wording."""
# ruff: noqa: ARG001 - operators are called alike, whatever they need of it

from tests.mutation.agency import Agency
from tests.mutation.cases import LISTED, Case
from tests.mutation.operator import Apply, Catalogue, Unfit, claim

DEFECTS = Catalogue()


def _texts(case: Case) -> list[str]:
    return ["body"] if case.kind == "sms" else ["body", "body", "subject"]


def _said(code: str, *texts: str, audience: str | None = "any", review: bool = False) -> Apply:
    """One of the texts, put at the end of the body or into the subject."""

    def apply(agency: Agency, case: Case) -> None:
        rng = agency.rng
        key = rng.choice(_texts(case))
        claim(case, f"{code}:{key}")
        if key in case.touched or (key == "subject" and "+subject" in case.touched):
            raise Unfit
        case.touched.add(f"+{key}")
        if audience != "any" and case.context.get("audience") != audience:
            raise Unfit
        text = rng.choice([text for text in texts if key == "body" or "\n" not in text])
        if code == "content.url_not_allowed":
            if "no list" in case.touched:
                raise Unfit
            case.touched.add("list")
            case.context["url_allowlist"] = LISTED
        case.artifact[key] = f"{case.artifact[key]} - {text} - thanks"
        if key == "subject":
            case.artifact[key] = f"Re: {text} - thanks"
            case.warnings = [] if len(case.artifact[key]) <= 78 else [("email.subject_too_long", "/subject")]
        (case.reviews if review else case.errors).append((code, f"/{key}"))

    return apply


PLACEHOLDERS = {
    "mustache": ("{{name}}", "{{ first_name }}", "{{{name}}}", "{{#if x}}", "{{ user.name | upper }}"),
    "dollar": ("${name}", "${ worker.first }", "$NAME$"),
    "erb and jinja": ("<%= name %>", "<% name %>", "{% if x %}"),
    "brackets": ("[NAME]", "[Your Name]", "[date]", "[FIRST_NAME]", "[Insert address here]", "[[name]]"),
    "angles": ("<FIRST_NAME>", "<your name>", "<NAME>", "<<name>>"),
    "percent": ("%s", "%(name)s", "%d", "%FIRST_NAME%", "%%name%%"),
    "braces": ("{first_name}", "{NAME}", "{name}"),
    "words": ("TBD", "lorem ipsum dolor", "TODO", "XXXX", "INSERT NAME HERE"),
    "hash": ("#{name}", "*|FNAME|*", "__NAME__", "@@NAME@@"),
    "blank": ("_____",),
}
SSNS = {
    "dashes": ("123-45-6789", "SSN 219-46-0918", "His social security number: 529-71-4083"),
    "spaces": ("SSN: 123 45 6789",),
    "bare": ("SSN 123456789", "social security number is 529714083", "SSN#123456789"),
    "odd dashes": ("SSN 123\u201345\u20136789", "SSN 123\u201145\u20116789", "SSN 123\u00a045\u00a06789"),
    "full-width": ("SSN \uff11\uff12\uff13-\uff14\uff15-\uff16\uff17\uff18\uff19",),
    "zero-width": ("SSN 123-\u200b45-\u200b6789", "SSN 123\u00ad-45-6789"),
    "itin": ("ITIN 912-70-1234",),
}
CARDS = {
    "spaces": ("4111 1111 1111 1111", "card 5555 5555 5555 4444 exp 01/29"),
    "dashes": ("4012-8888-8888-1881",),
    "bare": ("378282246310005", "card:6011111111111117", "Visa 4222222222222"),
    "amex": ("3782 822463 10005",),
    "full-width": ("\uff14\uff11\uff11\uff11 1111 1111 1111",),
    "zero-width": ("4111\u200b1111\u200b1111\u200b1111",),
    "no-break": ("4111\u00a01111\u00a01111\u00a01111",),
}
BANKS = {
    "routing": ("routing number 021000021", "ABA: 011401533", "RTN 091000019"),
    "account": (
        "account number: 12345678",
        "acct # 000123456",
        "bank account 1234567890",
        "checking account no. 123456789",
    ),
    "iban": ("IBAN DE89 3704 0044 0532 0130 00", "GB29NWBK60161331926819"),
}
PAY_WORKER = (
    *(
        "the bill rate is $32.50",
        "we bill the client $32.50 an hour",
        "our markup is 40%",
        "our mark-up: 40 %",
    ),
    *("gross margin is $9 per hour", "the client pays $32.50", "client is billed at $41/hr"),
)
PAY_CLIENT = (
    *(
        "her pay rate is $18.50",
        "we pay the worker $18 an hour",
        "the worker earns $18/hr",
        "our margin is 25%",
    ),
    *("wages are $18.50 per hour", "markup of 38% included"),
)
PAY_ANYBODY = ("our markup is 40%", "our gross margin is $9 per hour")
LINKS = {
    "another host": ("https://evil.example.net/x", "http://acme-staffing.org", "www.other-agency.com"),
    "below another": ("https://acme-staffing.com.evil.io/login", "https://xacme-staffing.com/a"),
    "user-info": ("https://acme-staffing.com@evil.io/", "https://a:b@acme-staffing.com/"),
    "address": (
        "http://10.0.0.1/a",
        "https://[::1]/x",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://192.168.0.1:80",
    ),
    "punycode": ("https://xn--acm-staffing-9fb.com/", "https://\u0430cme-staffing.com"),
    "shortener": ("bit.ly/3xYz", "https://tinyurl.com/abc", "https://t.co/x"),
    "parameter": (
        "https://evil.io/?u=acme-staffing.com",
        "https://evil.io/acme-staffing.com",
        "https://evil.io#acme-staffing.com",
    ),
    "backslash": ("https://evil.io\\@acme-staffing.com", "https:\\\\evil.io"),
    "scheme": ("HTTPS://EVIL.IO", "ftp://evil.io/x"),
}
DISCRIMINATORY = {
    "sex": (
        "males only",
        "Men Only",
        "no women please",
        "female candidates only",
        "must be male",
        "we prefer men",
    ),
    "age": (
        "young people only",
        "under 30 only",
        "nobody over 40",
        "no older workers",
        "looking for young men",
    ),
    "race": ("whites only", "no blacks", "no hispanics", "no mexicans"),
    "religion": ("Christians only", "no muslims"),
    "origin": ("no immigrants", "no foreigners"),
    "pregnant": ("no pregnant women",),
    "spread": ("MALES   ONLY", "males-only", "young\npeople only", "no\u00a0women"),
    "hidden": ("ma\u200bles only", "\uff4dales only"),
}
PERHAPS = ("recent college graduates", "digital natives", "able-bodied", "native English speakers")

for _kind in ("email", "sms"):
    for _code, _variants in (
        ("content.placeholder", PLACEHOLDERS),
        ("content.pii_ssn", SSNS),
        ("content.pii_card", CARDS),
        ("content.pii_bank", BANKS),
        ("content.url_not_allowed", LINKS),
        ("content.discriminatory", DISCRIMINATORY),
    ):
        for _variant, _samples in _variants.items():
            DEFECTS.add(_kind, _code, _variant, _said(_code, *_samples))
    for _audience, _samples in (("worker", PAY_WORKER), ("client", PAY_CLIENT), (None, PAY_ANYBODY)):
        _said_pay = _said("content.pay_disclosure", *_samples, audience=_audience)
        DEFECTS.add(_kind, "content.pay_disclosure", f"to a {_audience or 'reader'}", _said_pay)
    _perhaps = _said("content.discriminatory", *PERHAPS, review=True)
    DEFECTS.add(_kind, "content.discriminatory", "perhaps", _perhaps)


def _unlisted(agency: Agency, case: Case) -> None:
    """A link where no list is given anywhere."""
    claim(case, "content.url_not_allowed:body")
    if {"body", "list"} & case.touched or "url_allowlist" in case.context:
        raise Unfit
    case.touched.add("no list")
    case.touched.add("+body")
    case.artifact["body"] += " See https://acme-staffing.com/x"
    case.reviews.append(("content.url_not_allowed", "/body"))


for _kind in ("email", "sms"):
    DEFECTS.add(_kind, "content.url_not_allowed", "no list", _unlisted)
