"""Fixes of messages, applied as docs/validators.md says, remove their findings and add none."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from schemas.verdicts import Verdict
from tests.unit.validators.mending import apply_fixes

Judge = Callable[..., Verdict]

WHOM = {"worker_id": "W-001"}
SMS = {"to": "+16145550100", "body": "Hi Robert, your shift starts Monday at 6 am."}
EMAIL = {
    "to": ["w0@example.com"],
    "cc": ["desk@agency.example"],
    "from": "shifts@agency.example",
    "subject": "Your shift",
    "body": "Dear Robert,\n\nyour shift starts on Monday.",
}
SMS_CHANGES: dict[str, dict[str, Any]] = {
    "number": {"to": "+16145550199"},
    "no number": {"to": "12"},
    "name": {"body": "Hi Ms. Lopez, your shift starts Monday."},
    "curly": {"body": "Hi Susan, it’s on. " + "x" * 60},
}
EMAIL_CHANGES: dict[str, dict[str, Any]] = {
    "stranger": {"to": ["x@example.com", "y@example.com"]},
    "worker in cc": {"cc": ["w1@example.com", "w2@example.com", "desk@agency.example"]},
    "private cc": {"cc": ["a@gmail.com"]},
    "subject": {"subject": "Your\x0bshift\r\non \u202eMonday"},
    "name": {"body": "Hi Maria, see you."},
    "headers": {"headers": {"Bcc": "x@evil.example", "X-A": "a\nb", "X-B": "fine"}},
}


@pytest.mark.parametrize("names", list(itertools.combinations(SMS_CHANGES, 2)))
def test_sms(judge: Judge, names: tuple[str, str]) -> None:
    artifact = SMS | SMS_CHANGES[names[0]] | SMS_CHANGES[names[1]]
    findings = judge("sms", artifact, recipient=WHOM, first_contact=True).findings
    assert findings
    assert all(finding.fix for finding in findings)
    assert judge("sms", apply_fixes(artifact, findings), recipient=WHOM, first_contact=True).findings == []


@pytest.mark.parametrize("names", list(itertools.combinations(EMAIL_CHANGES, 2)))
def test_email(judge: Judge, names: tuple[str, str]) -> None:
    artifact = EMAIL | EMAIL_CHANGES[names[0]] | EMAIL_CHANGES[names[1]]
    findings = judge("email", artifact, recipient=WHOM).findings
    assert findings
    assert all(finding.fix for finding in findings)
    assert judge("email", apply_fixes(artifact, findings), recipient=WHOM).findings == []
