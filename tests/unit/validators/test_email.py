"""`email`: each code from a valid draft by one defect, and drafts that look odd and are fine."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from schemas.verdicts import Verdict
from validators.engine.addresses import Address

Judge = Callable[..., Verdict]

WHOM = {"worker_id": "W-001"}
DRAFT = {
    "to": ["w0@example.com"],
    "cc": ["Desk <desk@agency.example>"],
    "from": "shifts@agency.example",
    "subject": "Your shift on Monday",
    "body": "Dear Mr. Young,\n\nyour shift starts on Monday at 6 am.\n\nThe desk",
    "headers": {"Reply-To": "desk@agency.example"},
}


def found(verdict: Verdict) -> list[tuple[str, str]]:
    return [(finding.code, finding.path) for finding in verdict.findings]


def draft(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(DRAFT) | changes


def test_a_valid_draft_has_no_findings(judge: Judge) -> None:
    verdict = judge("email", draft(), recipient=WHOM)
    assert (verdict.verdict, verdict.findings) == ("accepted", [])
    assert judge("email", {"to": ["a@b.co"], "subject": "x", "body": "y"}).ok


@pytest.mark.parametrize(
    ("changes", "code", "path"),
    [
        ({"to": "w0@example.com"}, "schema.invalid", "/to"),
        ({"to": [5]}, "schema.invalid", "/to/0"),
        ({"bcc": []}, "schema.invalid", "/bcc"),
        ({"subject": None}, "schema.invalid", "/subject"),
        ({"headers": {"X-A": 1}}, "schema.invalid", "/headers/X-A"),
        ({"to": []}, "email.address_invalid", "/to"),
        ({"to": ["w0example.com"]}, "email.address_invalid", "/to/0"),
        ({"to": ["w0@localhost"]}, "email.address_invalid", "/to/0"),
        ({"to": ["w0@example..com"]}, "email.address_invalid", "/to/0"),
        ({"to": ['"w 0"@example.com']}, "email.address_invalid", "/to/0"),
        ({"to": ["w0@[10.0.0.1]"]}, "email.address_invalid", "/to/0"),
        ({"to": ["w0@-example.com"]}, "email.address_invalid", "/to/0"),
        ({"to": ["w0@example.com, w1@example.com"]}, "email.address_invalid", "/to/0"),
        ({"to": ["x" * 65 + "@example.com"]}, "email.address_invalid", "/to/0"),
        ({"cc": ["desk@"]}, "email.address_invalid", "/cc/0"),
        ({"from": "shifts"}, "email.address_invalid", "/from"),
        ({"to": ["w0@ex\u0430mple.com"]}, "email.address_homograph", "/to/0"),
        ({"to": ["w0@\u0441\u043e\u0440\u0430.com"]}, "email.address_homograph", "/to/0"),
        ({"to": ["w0@xn--exmple-4nf.com"]}, "email.address_homograph", "/to/0"),
        ({"to": ["w0@\uff45xample.com"]}, "email.address_homograph", "/to/0"),
        ({"from": "\u0455hifts@agency.example"}, "email.address_homograph", "/from"),
        ({"to": ["w1@example.com"]}, "email.recipient_mismatch", "/to/0"),
        ({"to": ["w0@example.com", "w1@example.com"]}, "email.recipient_mismatch", "/to/1"),
        ({"subject": "Shift\r\nBcc: x@evil.example"}, "email.header_injection", "/subject"),
        ({"subject": "Shift\x0bBcc: x"}, "email.header_injection", "/subject"),
        ({"subject": "Shift\u2028on Monday"}, "email.header_injection", "/subject"),
        ({"subject": "Shift \u202eyadnoM"}, "email.header_injection", "/subject"),
        ({"to": ["w0@example.com\nBcc: x@evil.example"]}, "email.header_injection", "/to/0"),
        ({"headers": {"X-A": "a\x85b"}}, "email.header_injection", "/headers/X-A"),
        ({"headers": {"X A": "b"}}, "email.header_injection", "/headers/X A"),
        ({"headers": {"BCC": "x@evil.example"}}, "email.header_injection", "/headers/BCC"),
        ({"subject": ""}, "email.subject_missing", "/subject"),
        ({"subject": " \t"}, "email.subject_missing", "/subject"),
        ({"subject": "x" * 999}, "email.subject_too_long", "/subject"),
        ({"body": ""}, "email.body_missing", "/body"),
        ({"body": "Dear Maria,\n\nsee you."}, "email.name_mismatch", "/body"),
        ({"body": "Susan, see you."}, "email.name_mismatch", "/body"),
        ({"cc": ["desk@agency.example", "W1@Example.com"]}, "email.recipient_mismatch", "/cc/1"),
        ({"headers": {"Reply-To": "desk"}}, "email.address_invalid", "/headers/Reply-To"),
        (
            {"headers": {"Reply-To": "d\u0435sk@agency.example"}},
            "email.address_homograph",
            "/headers/Reply-To",
        ),
        ({"headers": {"X-Note": "SSN 123-45-6789"}}, "content.pii_ssn", "/headers/X-Note"),
        ({"headers": {"X-Note": "for {{name}}"}}, "content.placeholder", "/headers/X-Note"),
        ({"to": ["w0@exa\u0301mple.com"]}, "email.recipient_mismatch", "/to/0"),
        ({"to": ["w0@e\u0261ample.com"]}, "email.address_homograph", "/to/0"),
        ({"to": ["w0@exam\u200bple.com"]}, "email.address_homograph", "/to/0"),
        ({"to": ["w0@example.invalid"]}, "email.address_invalid", "/to/0"),
        ({"to": ["w0@ex_ample.com"]}, "email.address_invalid", "/to/0"),
        ({"to": ["w0." + "@example.com"]}, "email.address_invalid", "/to/0"),
        ({"subject": "Your shift on [DATE]"}, "content.placeholder", "/subject"),
        ({"body": "Your SSN is 123-45-6789"}, "content.pii_ssn", "/body"),
        ({"body": "Card 4111 1111 1111 1111"}, "content.pii_card", "/body"),
        ({"body": "Routing number 021000021"}, "content.pii_bank", "/body"),
        ({"body": "Our markup is 40%"}, "content.pay_disclosure", "/body"),
        ({"subject": "We look for young people"}, "content.discriminatory", "/subject"),
    ],
)
def test_one_defect_is_one_finding(judge: Judge, changes: dict[str, Any], code: str, path: str) -> None:
    verdict = judge("email", draft(**changes), recipient=WHOM)
    assert found(verdict) == [(code, path)]
    assert verdict.verdict == "rejected"


@pytest.mark.parametrize(("field", "code"), [("subject", "subject_missing"), ("body", "body_missing")])
def test_an_absent_text_is_a_code_of_its_own(judge: Judge, field: str, code: str) -> None:
    without = {key: value for key, value in draft().items() if key != field}
    assert found(judge("email", without, recipient=WHOM)) == [(f"email.{code}", f"/{field}")]


def test_a_long_subject_is_a_warning_before_it_is_an_error(judge: Judge) -> None:
    assert judge("email", draft(subject="x" * 78)).findings == []
    verdict = judge("email", draft(subject="x" * 79))
    assert [(f.code, f.severity) for f in verdict.findings] == [("email.subject_too_long", "warning")]
    assert verdict.ok
    assert [f.severity for f in judge("email", draft(subject="x" * 998)).findings] == ["warning"]


def test_a_link_that_is_not_on_the_list(judge: Judge) -> None:
    verdict = judge("email", draft(body="See https://evil.example/a"), url_allowlist=["agency.example"])
    assert found(verdict) == [("content.url_not_allowed", "/body")]


@pytest.mark.parametrize("to", ["W0@Example.COM", "Robert Young <w0@example.com>", " w0@example.com"])
def test_case_and_display_name_do_not_matter(judge: Judge, to: str) -> None:
    assert judge("email", draft(to=[to]), recipient=WHOM).ok


@pytest.mark.parametrize(
    "address", ["a@m\u00fcnchen.example", "o'neil+x@sub.example.co.uk", "a.b@xn--mnchen-3ya.example"]
)
def test_addresses_that_are_fine(address: str) -> None:
    read = Address.parse(address)
    assert read is not None
    assert read.deliverable
    assert not read.deceptive


def test_a_recipient_by_name_and_address_needs_no_roster(judge: Judge) -> None:
    whom = {"name": "Young, Robert", "email": "r.young@example.com"}
    verdict = judge("email", draft(to=["R.Young@example.com"]), recipient=whom)
    assert verdict.ok
    alone = {key: value for key, value in draft(to=["R.Young@example.com"]).items() if key != "cc"}
    assert judge("email", alone, recipient=whom).roster is None
    (finding,) = judge("email", draft(), recipient=whom).findings
    assert finding.fix == {"op": "replace", "path": "/to/0", "value": "r.young@example.com"}


def test_an_unknown_recipient_is_a_mismatch_of_the_whole(judge: Judge) -> None:
    verdict = judge("email", draft(), recipient={"worker_id": "W-9"})
    assert found(verdict) == [("email.recipient_mismatch", "/to")]


def test_fixes_mend_what_they_stand_on(judge: Judge) -> None:
    bad = draft(
        to=["w1@example.com"],
        subject="Shift\r\non Monday",
        body="Hi Maria, see you.",
        headers={"Bcc": "x@evil.example"},
    )
    verdict = judge("email", bad, recipient=WHOM)
    for finding in verdict.findings:
        assert finding.fix is not None
        if finding.fix["op"] == "remove":
            bad["headers"] = {}
        elif finding.path == "/to/0":
            bad["to"] = [finding.fix["value"]]
        else:
            bad[finding.path[1:]] = finding.fix["value"]
    assert judge("email", bad, recipient=WHOM).findings == []
    assert bad["subject"] == "Shift on Monday"
    assert bad["body"] == "Hi Robert, see you."


def test_readers_in_cc(judge: Judge) -> None:
    """A desk, a client and the recipient may read along; an unknown private address is for review."""
    fine = ["desk@agency.example", "w0@example.com", "ap@client.example"]
    assert judge("email", draft(cc=fine), recipient=WHOM).ok
    verdict = judge("email", draft(cc=["somebody@gmail.com"]), recipient=WHOM)
    assert [(f.code, f.path, f.severity) for f in verdict.findings] == [
        ("email.recipient_mismatch", "/cc/0", "review")
    ]
    assert judge("email", draft(cc=["w1@example.com"])).ok  # nobody is named


def test_a_line_that_is_too_long_is_a_warning(judge: Judge) -> None:
    body = "Dear Robert,\n" + "so " * 400 + "\nBye"
    (finding,) = judge("email", draft(body=body), recipient=WHOM).findings
    assert (finding.code, finding.severity, finding.span) == ("email.line_too_long", "warning", (13, 1213))
    assert judge("email", draft(body="Dear Robert,\n" + "so so so\n" * 400), recipient=WHOM).findings == []
    (header,) = judge("email", draft(headers={"X-A": "so " * 400}), recipient=WHOM).findings
    assert (header.code, header.path) == ("email.line_too_long", "/headers/X-A")


def test_no_fix_repeats_personal_data(judge: Judge) -> None:
    bad = draft(subject="SSN\x0b123-45-6789", body="Hi Maria, your card is 4111 1111 1111 1111")
    verdict = judge("email", bad, recipient=WHOM)
    assert {finding.code for finding in verdict.findings} == {
        "email.header_injection",
        "email.name_mismatch",
        "content.pii_ssn",
        "content.pii_card",
    }
    told = verdict.model_dump_json()
    assert "6789" not in told
    assert "1111" not in told


def test_more_addresses_than_any_mail_has_are_not_looked_at(judge: Judge) -> None:
    verdict = judge("email", draft(to=["a@b.co"] * 1001))
    assert found(verdict) == [("email.address_invalid", "/to")]


@pytest.mark.parametrize(
    "address",
    [
        "bj\u00f8rn@example.com",
        "a@sm\u00f8rrebr\u00f8d.example",
        "a@\u043f\u0440\u0438\u043c\u0435\u0440.\u0440\u0444",
        "a@b.test",
    ],
)
def test_letters_of_other_languages_are_no_homographs(address: str) -> None:
    read = Address.parse(address)
    assert read is not None
    assert not read.deceptive
    assert read.deliverable == read.local.isascii()
