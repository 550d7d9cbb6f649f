"""`content.*`: what is found in a text, and what only looks like it."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from schemas.verdicts import Verdict

Judge = Callable[..., Verdict]

TO = "+16145550100"


def codes(judge: Judge, body: str, **context: Any) -> list[str]:
    verdict = judge("sms", {"to": TO, "body": body}, segments_max=1000, **context)
    return [finding.code for finding in verdict.findings]


@pytest.mark.parametrize(
    "left_over",
    [
        "{{name}}",
        "{{ first name }}",
        "${name}",
        "<%= name %>",
        "{first_name}",
        "[NAME]",
        "[Your Name]",
        "[date]",
        "<FIRST_NAME>",
        "<your name>",
        "%s",
        "%(name)s",
        "TBD",
        "TBA",
        "lorem ipsum",
        "____",
        "XXXX",
        "{{{name}}}",
        "{% if x %}",
        "{# note #}",
        "#{name}",
        "{!Contact.FirstName}",
        "{0}",
        "$first_name",
        "$firstName",
        "$NAME$",
        "$(name)",
        "<?= name ?>",
        "<<name>>",
        "<<First_Name>>",
        "<NAME>",
        "<firstName>",
        "[worker_name]",
        "[CLIENT'S NAME]",
        "[[name]]",
        "[Insert address here]",
        "*|FNAME|*",
        "%FIRST_NAME%",
        "%%name%%",
        "__NAME__",
        "@@NAME@@",
        "##NAME##",
        "INSERT NAME HERE",
        "(your name)",
        "T.B.D.",
        "[object Object]",
        "{{name",
    ],
)
def test_placeholder(judge: Judge, left_over: str) -> None:
    body = f"Your shift {left_over} starts"
    verdict = judge("sms", {"to": TO, "body": body})
    assert [(finding.code, finding.path) for finding in verdict.findings] == [
        ("content.placeholder", "/body")
    ]
    assert verdict.findings[0].span is not None
    start, end = verdict.findings[0].span
    assert body[start:end] in (left_over, "{{")


@pytest.mark.parametrize(
    "body",
    [
        "Save 50%so nice",
        "100% sure",
        "size XXL",
        "see [1] and {2}",
        "a < b > c",
        "it is to be done",
        "<3 you",
        "[URGENT] shift",
        "[Action Required] sign",
        "bay [B-12]",
        "needs [OSHA-10]",
        "a <br> b",
        "ending XXX-XX-6789",
        "card XXXX XXXX XXXX 1234",
        "50% to 60% of",
        "\u00abhola\u00bb dijo",
        "$20/hr and $25/hr",
        "a_b and c__d",
    ],
)
def test_no_placeholder(judge: Judge, body: str) -> None:
    assert codes(judge, body) == []


@pytest.mark.parametrize(
    "body",
    [
        "SSN 123-45-6789",
        "id 123 45 6789 ok",
        "your SSN is 123456789",
        "123.45.6789",
        "123 - 45 - 6789",
        "SSN-123-45-6789",
        "123456789 (SSN)",
        "order 12, social security 123456789",
        "ITIN 912-70-1234",
        "your tax id is 912701234",
    ],
)
def test_social_security_number(judge: Judge, body: str) -> None:
    assert codes(judge, body) == ["content.pii_ssn"]


@pytest.mark.parametrize(
    "body",
    [
        "078-05-1120",
        "219-09-9999",
        "SSN 000-12-3456",
        "666-12-3456",
        "912-34-5678",
        "order 123456789 is ready",
        "614-555-0100",
        "123-45-67890",
        "2026-11-0222",
        "SSN is on file; order 123456789",
        "PO-123-45-6789",
        "SSN unknown, call 614555010",
        "no label 912701234",
        "123-45.6789",
        "ssn 1234567890",
        "zip 43215-1234 56",
    ],
)
def test_no_social_security_number(judge: Judge, body: str) -> None:
    assert codes(judge, body) == []


@pytest.mark.parametrize(
    "number",
    [
        "4111 1111 1111 1111",
        "5555-5555-5555-4444",
        "378282246310005",
        "6011111111111117",
        "3782 822463 10005",
        "4111.1111.1111.1111",
        "12 4111 1111 1111 1111",
    ],
)
def test_card(judge: Judge, number: str) -> None:
    assert codes(judge, f"use {number} please") == ["content.pii_card"]


@pytest.mark.parametrize(
    "number", ["4111 1111 1111 1112", "1234567890123456", "0000000000000000", "20261102060000"]
)
def test_no_card(judge: Judge, number: str) -> None:
    assert codes(judge, f"use {number} please") == []


@pytest.mark.parametrize(
    "body",
    [
        "routing 021000021",
        "account number: 12345678",
        "acct # 000123456",
        "IBAN DE89 3704 0044 0532 0130 00",
        "021000021 is our routing",
        "checking account 1234-5678-90",
    ],
)
def test_bank(judge: Judge, body: str) -> None:
    assert codes(judge, body) == ["content.pii_bank"]


@pytest.mark.parametrize(
    "body",
    [
        "routing 021000022",
        "order 021000021",
        "your account is open",
        "DE00 1234 5678 9012 3456",
        "account number: call 6145550100",
        "your account rep, order 12345678",
        "routing of order 021000021",
    ],
)
def test_no_bank(judge: Judge, body: str) -> None:
    assert codes(judge, body) == []


@pytest.mark.parametrize(
    ("body", "audience", "expected"),
    [
        ("The bill rate is $32.50", "worker", ["content.pay_disclosure"]),
        ("Your pay rate is $18 per hour", "worker", []),
        ("The pay rate is $18 per hour", "client", ["content.pay_disclosure"]),
        ("The bill rate is $32.50", "client", []),
        ("The worker earns $18 per hour", "client", ["content.pay_disclosure"]),
        ("Her wage is $18 per hour", "client", ["content.pay_disclosure"]),
        ("We bill the client $32.50", "worker", ["content.pay_disclosure"]),
        ("Our markup is 40%", None, ["content.pay_disclosure"]),
        ("The client pays us a bill rate of $27.50 an hour", "worker", ["content.pay_disclosure"]),
        ("Ask us about the bill rate", "worker", []),
        ("Your pay is $18 per hour. Ask us about the bill rate.", "worker", []),
        ("Pay: $18\nBill rate: ask", "worker", []),
        ("bill rate: 32.50", "worker", ["content.pay_disclosure"]),
        ("Bill-rate of 32", "worker", ["content.pay_disclosure"]),
        ("our margin is 25 percent", "worker", ["content.pay_disclosure"]),
        ("we bill them forty dollars", "worker", ["content.pay_disclosure"]),
        ("Your bill rate is $32.50, overtime $48.75; invoice total $1,250.00", "client", []),
        ("We pay our associates $18", "client", ["content.pay_disclosure"]),
    ],
)
def test_pay_disclosure(judge: Judge, body: str, audience: str | None, expected: list[str]) -> None:
    assert codes(judge, body, audience=audience) == expected


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/x",
        "http://acme.com.evil.io",
        "https://acme.com@evil.io/",
        "http://10.0.0.1/a",
        "bit.ly/abc",
        "https://xn--acm-dma.com",
        "www.other.com",
        "https://notacme.com",
        "https://evil.io/?u=acme.com",
        "https://evil.io\\@acme.com",
        "https:\\\\evil.io",
        "ftp://evil.io/x",
        "https://acme.com:pw@evil.io",
        "acme.com@evil.io/x",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://[::1]/",
        "10.0.0.1/a",
        "https://\u0430cme.com",
        "\u0430cme.com",
        "\uff41cme.com",
        "evil.tk/x",
        "evil.me/x",
        "https://localhost/x",
        "www.tinyurl.com/x",
    ],
)
def test_link_that_is_not_on_the_list(judge: Judge, url: str) -> None:
    verdict = judge("sms", {"to": TO, "body": f"See {url}."}, url_allowlist=["acme.com"])
    assert [(f.code, f.severity) for f in verdict.findings] == [("content.url_not_allowed", "error")]


@pytest.mark.parametrize(
    "body",
    [
        "See https://acme.com/a.",
        "See (www.acme.com)",
        "ACME.COM:8443/x",
        "jobs.acme.com",
        "Mail me@other.com",
        "Come Monday.It starts at 6",
        "see report.md and e.g. this",
        "version 1.2.3/4, and/or",
        "9.30a.m. to 5.30p.m.",
        "acme.com, thanks",
    ],
)
def test_link_that_is_on_the_list(judge: Judge, body: str) -> None:
    assert codes(judge, body, url_allowlist=["acme.com"]) == []


@pytest.mark.parametrize(
    ("entry", "link", "fine"),
    [
        ("https://acme.com", "https://acme.com/jobs?id=1", True),
        ("https://acme.com/", "HTTPS://jobs.ACME.com", True),
        ("https://acme.com", "https://acme.com.evil.org", False),
        ("https://acme.com", "https://acme.com@evil.org/", False),
        ("https://acme.com/jobs/", "https://acme.com/jobs", True),
        ("https://acme.com/jobs", "https://acme.com/jobs/7", True),
        ("https://acme.com/jobs", "https://acme.com/jobs-elsewhere", False),
        ("https://acme.com/jobs", "https://acme.com/jobs/%2e%2e/admin", False),
        ("https://acme.com/jobs", "https://acme.com/", False),
        ("https://", "https://acme.com/", False),
        ("www.acme.com", "https://jobs.acme.com", True),
        ("*.acme.com", "https://jobs.acme.com", True),
        ("jobs.acme.com", "https://acme.com", False),
        ("co.uk", "https://evil.co.uk", False),
        ("com", "https://evil.com", False),
        ("github.io", "https://evil.github.io", False),
        ("acme.github.io", "https://acme.github.io/jobs", True),
        ("bit.ly", "https://bit.ly/abc", False),
        ("xn--acm-dma.com", "https://xn--acm-dma.com/", True),
    ],
)
def test_a_list_may_hold_urls(judge: Judge, entry: str, link: str, fine: bool) -> None:
    assert codes(judge, f"See {link}", url_allowlist=[entry]) == ([] if fine else ["content.url_not_allowed"])


def test_a_link_without_any_list_is_for_review(judge: Judge) -> None:
    verdict = judge("sms", {"to": TO, "body": "See acme.com/jobs"})
    assert [(f.code, f.severity) for f in verdict.findings] == [("content.url_not_allowed", "review")]
    assert verdict.verdict == "needs_human_review"


@pytest.mark.parametrize(
    ("body", "severity"),
    [
        ("We want young people for this", "error"),
        ("MALES ONLY please", "error"),
        ("we prefer men for this shift", "error"),
        ("Christian applicants only", "error"),
        ("for recent college graduates", "review"),
        ("no one over 45 please", "error"),
        ("the client prefers women", "error"),
        ("must be under 35", "error"),
        ("women need not apply", "error"),
        ("No-Muslims", "error"),
        ("ages 20-35", "review"),
        ("US citizens", "review"),
        ("able-bodied helpers wanted", "review"),
    ],
)
def test_discriminatory(judge: Judge, body: str, severity: str) -> None:
    verdict = judge("sms", {"to": TO, "body": body})
    assert [(f.code, f.severity) for f in verdict.findings] == [("content.discriminatory", severity)]


@pytest.mark.parametrize(
    "body",
    [
        "Dear Mr. Young, people are waiting",
        "no women's sizes left",
        "you must be 18 or older",
        "must be at least 21",
        "our seniors team",
        "workmen only need boots",
        "forty men and women applied",
    ],
)
def test_not_discriminatory(judge: Judge, body: str) -> None:
    assert codes(judge, body) == []


def test_a_worker_named_by_id_is_the_audience(judge: Judge) -> None:
    assert codes(judge, "The bill rate is $32.50", recipient={"worker_id": "W-001"}) == [
        "content.pay_disclosure"
    ]
    assert codes(judge, "The bill rate is $32.50") == []


def test_a_finding_on_a_link_says_why_and_names_the_registered_domain(judge: Judge) -> None:
    (finding,) = judge(
        "sms", {"to": TO, "body": "See https://a.b.evil.co.uk/x"}, url_allowlist=["acme.com"]
    ).findings
    assert finding.evidence == {"reason": "not_listed", "registered_domain": "evil.co.uk"}
    (finding,) = judge("sms", {"to": TO, "body": "See http://10.1/x"}, url_allowlist=["acme.com"]).findings
    assert finding.evidence == {"reason": "ip_address", "registered_domain": None}


@pytest.mark.parametrize(
    "seed", ["{{", "1 ", "a.", "[A", "$1 markup ", "{a", "DE89 ", "account number ", "Hi A", "%("]
)
def test_hostile_text_costs_linear_time(judge: Judge, seed: str) -> None:
    """Sixteen times the text may take about sixteen times as long, not 256 times. The margin is wide."""

    def seconds(length: int) -> float:
        body = (seed * length)[:length]
        started = time.process_time()
        judge("sms", {"to": TO, "body": body}, segments_max=10_000)
        return time.process_time() - started

    seconds(3_000)
    assert seconds(48_000) < 100 * max(seconds(3_000), 0.002)
