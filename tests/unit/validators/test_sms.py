"""`sms`: each code from a valid message by one defect, exact segments, texts that are odd and fine."""

from collections.abc import Callable
from typing import Any

import pytest

from schemas.verdicts import Verdict
from services.errors import InvalidRequest, Unavailable
from validators.app import SHIPPED_POLICY
from validators.engine import Policy, SmsValidator, gsm

Judge = Callable[..., Verdict]

TO = "+16145550100"
BODY = "Hi Robert, your shift at Oak Street starts Monday at 6 am. See you there."
WHOM = {"worker_id": "W-001"}


def found(verdict: Verdict) -> list[tuple[str, str]]:
    return [(finding.code, finding.path) for finding in verdict.findings]


def test_a_valid_message_has_no_findings(judge: Judge) -> None:
    verdict = judge("sms", {"to": TO, "body": BODY}, recipient=WHOM)
    assert (verdict.verdict, verdict.findings) == ("accepted", [])
    assert verdict.roster is not None


@pytest.mark.parametrize(
    ("artifact", "context", "code", "path"),
    [
        ({"to": 5, "body": BODY}, {}, "schema.invalid", "/to"),
        ({"to": [TO, "+16145550101"], "body": BODY}, {"recipient": WHOM}, "schema.invalid", "/to"),
        ({"body": BODY}, {}, "schema.invalid", "/to"),
        ({"to": TO, "body": 5}, {}, "schema.invalid", "/body"),
        ({"to": TO, "body": BODY, "when": "now"}, {}, "schema.invalid", "/when"),
        ({"to": "", "body": BODY}, {}, "sms.number_invalid", "/to"),
        ({"to": "12345", "body": BODY}, {}, "sms.number_invalid", "/to"),
        ({"to": "+1 800 FLOWERS", "body": BODY}, {}, "sms.number_invalid", "/to"),
        ({"to": "+1 614 555 0100 x5", "body": BODY}, {}, "sms.number_invalid", "/to"),
        ({"to": f"{TO}, +16145550101", "body": BODY}, {"recipient": WHOM}, "sms.number_invalid", "/to"),
        ({"to": TO}, {}, "sms.body_missing", "/body"),
        ({"to": TO, "body": ""}, {}, "sms.body_missing", "/body"),
        ({"to": TO, "body": " \n"}, {}, "sms.body_missing", "/body"),
        ({"to": TO, "body": "x" * 161}, {}, "sms.too_long", "/body"),
        ({"to": "+16145550101", "body": BODY}, {"recipient": WHOM}, "sms.recipient_mismatch", "/to"),
        ({"to": TO, "body": BODY}, {"recipient": {"worker_id": "W-9"}}, "sms.recipient_mismatch", "/to"),
        ({"to": TO, "body": "Hi Maria, see you."}, {"recipient": WHOM}, "sms.name_mismatch", "/body"),
        ({"to": TO, "body": BODY}, {"opted_out": True}, "sms.opted_out", "/to"),
        ({"to": TO, "body": BODY}, {"first_contact": True}, "sms.opt_out_missing", "/body"),
        (
            {"to": TO, "body": "Non-stop fun at the bus stop"},
            {"first_contact": True},
            "sms.opt_out_missing",
            "/body",
        ),
    ],
)
def test_one_defect_is_one_finding(
    judge: Judge, artifact: dict[str, Any], context: dict[str, Any], code: str, path: str
) -> None:
    verdict = judge("sms", artifact, **context)
    assert found(verdict) == [(code, path)]
    assert verdict.verdict == "rejected"


@pytest.mark.parametrize("number", ["6145550100", "(614) 555-0100", "+1-614-555-0100", "1 614.555.0100"])
def test_a_number_may_be_written_as_people_do(judge: Judge, number: str) -> None:
    assert judge("sms", {"to": number, "body": BODY}, recipient=WHOM).ok


@pytest.mark.parametrize(
    ("text", "encoding", "units", "count"),
    [
        ("", "GSM-7", 0, 0),
        ("a" * 160, "GSM-7", 160, 1),
        ("a" * 161, "GSM-7", 161, 2),
        ("a" * 158 + "€", "GSM-7", 160, 1),
        ("a" * 159 + "€", "GSM-7", 161, 2),
        ("a" * 306, "GSM-7", 306, 2),
        (
            "a" * 152 + "€" + "a" * 152,
            "GSM-7",
            306,
            3,
        ),  # € does not fit the last septet
        ("a" * 69 + "’", "UCS-2", 70, 1),
        ("a" * 70 + "’", "UCS-2", 71, 2),
        ("a" * 68 + "😀", "UCS-2", 70, 1),
        ("a" * 66 + "😀" + "a" * 66, "UCS-2", 134, 3),  # a surrogate pair is not split either
        ("\ta", "UCS-2", 2, 1),
        ("ÑÜà\n", "GSM-7", 4, 1),
        ("ç", "UCS-2", 1, 1),  # only the capital is in GSM-7
    ],
)
def test_segments(policy: Policy, text: str, encoding: str, units: int, count: int) -> None:
    cut = gsm.segments(text, policy.file.sms)
    assert (cut.encoding, cut.units, cut.count) == (encoding, units, count)


def test_160_characters_with_a_euro_sign_say_why_they_are_too_long(judge: Judge) -> None:
    (finding,) = judge("sms", {"to": TO, "body": "a" * 159 + "€"}).findings
    assert finding.evidence == {"encoding": "GSM-7", "segments": 2, "units": 161, "segments_max": 1}
    assert finding.span == (153, 160)
    assert judge("sms", {"to": TO, "body": "a" * 159 + "€"}, segments_max=2).ok


def test_one_curly_apostrophe_is_mended_by_the_straight_one(judge: Judge) -> None:
    body = "It’s " + "a" * 100
    (finding,) = judge("sms", {"to": TO, "body": body}).findings
    assert finding.code == "sms.too_long"
    assert finding.evidence is not None
    assert finding.evidence["encoding"] == "UCS-2"
    assert finding.fix == {"op": "replace", "path": "/body", "value": "It's " + "a" * 100}


def test_one_fix_mends_everything_in_the_text(judge: Judge) -> None:
    verdict = judge("sms", {"to": TO, "body": "Hi Ms. Lopez, you’re on."}, recipient=WHOM, first_contact=True)
    assert found(verdict) == [("sms.name_mismatch", "/body"), ("sms.opt_out_missing", "/body")]
    assert verdict.findings[0].span == (7, 12)
    fixes = [finding.fix for finding in verdict.findings]
    assert fixes[0] == fixes[1]
    assert fixes[0] is not None
    mended = fixes[0]["value"]
    assert judge("sms", {"to": TO, "body": mended}, recipient=WHOM, first_contact=True).ok


def test_a_wrong_number_is_mended_by_the_rosters(judge: Judge) -> None:
    (finding,) = judge("sms", {"to": "+16145550199", "body": BODY}, recipient=WHOM).findings
    assert finding.fix == {"op": "replace", "path": "/to", "value": TO}
    assert "0100" not in finding.message


@pytest.mark.parametrize(
    "opening",
    [
        "Hi Bob,",
        "hi bob,",
        "Hello Robert!",
        "HI ROBERT:",
        "Dear Mr. Young,",
        "Hey Rob your shift",
        "Hi Robert Young,",
        "Hi there,",
        "Hi all,",
        "Hello night crew,",
        "Hi, your",
        "Good morning Bobby.",
        "Your",
        "Dear Sir or Madam,",
    ],
)
def test_greetings_to_the_recipient_or_to_nobody_by_name(judge: Judge, opening: str) -> None:
    assert found(judge("sms", {"to": TO, "body": f"{opening} shift is at 6."}, recipient=WHOM)) == []


@pytest.mark.parametrize(
    "opening",
    ["Hi Rita,", "Dear Mr. Jung,", "hi maria,", "Hey Ana your", "Hi Robert Jung,", "Hi Young,"],
)
def test_greetings_to_somebody_else(judge: Judge, opening: str) -> None:
    expected = [("sms.name_mismatch", "/body")]
    assert found(judge("sms", {"to": TO, "body": f"{opening} shift is at 6."}, recipient=WHOM)) == expected


def test_a_recipient_may_be_given_by_name_and_needs_no_roster(judge: Judge) -> None:
    whom = {"name": "María O'Connor-Núñez", "email": "m@example.com"}
    verdict = judge("sms", {"to": TO, "body": "Hi Maria, see you."}, recipient=whom)
    assert (verdict.ok, verdict.roster) == (True, None)


@pytest.mark.parametrize(
    "body",
    ["Reply STOP to opt out", "Text 'STOP' to end.", "REPLY  stop", "Msg rates apply.\nReply\nSTOP to quit"],
)
def test_ways_to_say_how_to_opt_out(judge: Judge, body: str) -> None:
    assert judge("sms", {"to": TO, "body": body}, first_contact=True).ok


def test_a_recipient_who_is_nobody_is_the_callers_mistake(judge: Judge) -> None:
    with pytest.raises(InvalidRequest) as error:
        judge("sms", {"to": TO, "body": BODY}, recipient={})
    assert error.value.param == "context.recipient"


def test_the_tail_of_a_name_is_no_finding_on_wording(judge: Judge) -> None:
    body = "Dear Mr. Young, the Youngs said hello."
    assert judge("sms", {"to": TO, "body": body}, recipient=WHOM).ok


def test_naming_a_worker_needs_the_roster(policy: Policy) -> None:
    def none() -> Any:
        raise Unavailable("no roster is loaded", code="roster_missing")

    with pytest.raises(Unavailable):
        SmsValidator(policy).check({"to": TO, "body": BODY}, {"recipient": {"worker_id": "W-001"}}, none)
    assert SmsValidator(policy).check({"to": TO, "body": BODY}, {}, none).findings == []


@pytest.mark.parametrize("to", [["+16145550100"], 16145550100, None])
def test_who_has_opted_out_is_said_whatever_else_is_wrong(judge: Judge, to: Any) -> None:
    assert found(judge("sms", {"to": to, "body": BODY}, opted_out=True)) == [
        ("schema.invalid", "/to"),
        ("sms.opted_out", "/to"),
    ]


def test_an_opt_out_at_the_end_of_a_long_text_counts(judge: Judge) -> None:
    body = "so " * 250 + "Reply STOP to opt out"
    assert judge("sms", {"to": TO, "body": body}, first_contact=True, segments_max=9).ok


def test_a_first_message_may_have_to_name_its_sender(shipped: str) -> None:
    policy = Policy(shipped.replace("sender_names = []", 'sender_names = ["Acme Staffing"]').encode())
    check = SmsValidator(policy).check
    told: dict[str, Any] = {"to": TO, "body": "ACME staffing: reply STOP to opt out"}
    assert check(told, {"first_contact": True}, nobody).findings == []
    untold: dict[str, Any] = {"to": TO, "body": "Acme: reply STOP to opt out"}
    (finding,) = check(untold, {"first_contact": True}, nobody).findings
    assert (finding.code, finding.path) == ("sms.sender_missing", "/body")
    assert check(untold, {}, nobody).findings == []


def test_segments_of_toll_free_numbers_are_a_matter_of_policy(shipped: str) -> None:
    toll_free = Policy(shipped.replace("gsm_units_multi = 153", "gsm_units_multi = 152").encode())
    assert gsm.segments("a" * 305, toll_free.file.sms).count == 3
    assert gsm.segments("a" * 305, Policy(shipped.encode()).file.sms).count == 2


def test_the_alphabet_has_128_characters_but_for_the_escape_itself() -> None:
    assert len(gsm.BASIC) == 127
    assert len(gsm.EXTENDED) == 10
    assert not gsm.BASIC & gsm.EXTENDED


def test_no_fix_repeats_personal_data(judge: Judge) -> None:
    verdict = judge("sms", {"to": TO, "body": "Hi Maria, SSN 123-45-6789"}, recipient=WHOM)
    assert found(verdict) == [("content.pii_ssn", "/body"), ("sms.name_mismatch", "/body")]
    assert "6789" not in verdict.model_dump_json()


@pytest.mark.parametrize(
    "context",
    [
        {"segments_max": "1"},
        {"segments_max": True},
        {"segments_max": 0},
        {"opted_out": "yes"},
        {"first_contact": 1},
    ],
)
def test_a_context_of_other_types_is_refused(judge: Judge, context: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as error:
        judge("sms", {"to": TO, "body": BODY}, **context)
    assert error.value.param == f"context.{next(iter(context))}"


def nobody() -> Any:
    raise AssertionError("these messages name no worker")


@pytest.fixture
def shipped() -> str:
    return SHIPPED_POLICY.read_text()
