"""A text as people see it: tricks of Unicode hide nothing, and every place leads back to the original."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.verdicts import Verdict
from validators.engine.view import View

Judge = Callable[..., Verdict]

TO = "+16145550100"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("plain, 12-3", "plain, 12-3"),
        ("y\u200bo\u00adu\u2060ng", "young"),
        ("yo\u0301ung", "young"),
        ("\u0443\u043eung", "young"),
        ("\uff59\uff4f\uff55\uff4e\uff47", "young"),
        ("\u24e8\u24de\u24e4\u24dd\u24d6", "young"),
        ("\U0001d432oung", "young"),
        ("\u028f\u1d0f\u1d1c\u0274\u0262", "young"),
        ("\u0661\u0662\u06f3", "123"),
        ("1\u00a02\u20093\u2014\u20114\u22125", "1 2 3--4-5"),
        ("a\u2028b\x0bc\x85d\x08e", "a\nb\nc\nde"),
        ("4\u00bd", "4\x1a"),
        ("\u4eba men", "q men"),
        ("\u20ac5 \u00a37", "$5 $7"),
        ("\ud800", "\x1a"),
    ],
)
def test_what_is_seen(raw: str, text: str) -> None:
    assert View(raw).text == text


@given(st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_every_place_leads_back_to_what_is_seen_there(raw: str) -> None:
    view = View(raw)
    assert view.text.isascii()
    last = 0
    for at, char in enumerate(view.text):
        start, end = view.span(at, at + 1)
        assert last <= start < end <= len(raw)
        assert char in View(raw[start:end]).text
        last = start


@pytest.mark.parametrize(
    ("body", "code", "piece"),
    [
        ("Come, \u0443\u043eung people", "content.discriminatory", "\u0443\u043eung people"),
        ("\uff2dales \uff2fnly here", "content.discriminatory", "\uff2dales \uff2fnly"),
        ("it is 123-\u200b45-6789 ok", "content.pii_ssn", "123-\u200b45-6789"),
        (
            "it is \uff11\uff12\uff13\u201045\u20106789 ok",
            "content.pii_ssn",
            "\uff11\uff12\uff13\u201045\u20106789",
        ),
        ("use 4111\u00a01111\u00a01111\u00a01111", "content.pii_card", "4111\u00a01111\u00a01111\u00a01111"),
        ("routing \u0660\u0662\u0661000021", "content.pii_bank", "\u0660\u0662\u0661000021"),
        ("Hey \uff5b\uff5bname\uff5d\uff5d ok", "content.placeholder", "\uff5b\uff5bname\uff5d\uff5d"),
        ("our mar\u00adkup is 40%", "content.pay_disclosure", "mar\u00adkup"),
    ],
)
def test_tricks_hide_no_finding_and_spans_are_those_of_the_original(
    judge: Judge, body: str, code: str, piece: str
) -> None:
    (finding,) = judge("sms", {"to": TO, "body": body}, segments_max=9).findings
    assert finding.code == code
    assert finding.span is not None
    assert body[slice(*finding.span)] == piece


HOSTILE = [
    *("{{", "{a}", "{", "[A", "[[[[", "<<", "<a_", "%(", "____", "XXX ", "TBD ", "a.", "a.com ", "http://a "),
    *("www.", "a@", "1 ", "123-45-", "SSN 123456789 ", "DE89 ", "4111 ", "account number ", "young people "),
    *("no one over ", "markup ", "$1 markup ", "(", "Hi ", "\u200b", "\uff21", "\u65e5", "\U0001f600"),
    *("\u0315\u0300", "\u0430"),
]


@pytest.mark.parametrize("seed", HOSTILE)
@pytest.mark.parametrize("kind", ["sms", "email"])
def test_no_text_within_the_limit_takes_long(judge: Judge, seed: str, kind: str) -> None:
    body = seed * (30_000 // len(seed.encode()))
    draft: dict[str, Any] = {"to": TO, "body": body}
    if kind == "email":
        draft = {"to": ["a@b.co"], "from": body[:4_000], "subject": body[:900], "body": body}
    started = time.process_time()
    judge(kind, draft, url_allowlist=["acme.com"])
    assert time.process_time() - started < 1, "tens of milliseconds are usual; quadratic time is seconds"


def test_findings_on_one_text_are_bounded(judge: Judge) -> None:
    findings = judge("sms", {"to": TO, "body": "TBD " * 5000}, segments_max=1000).findings
    assert len(findings) == 100
