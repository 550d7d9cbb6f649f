"""`fill`: each code from a valid proposal by one defect, and valid proposals that look odd."""

from collections.abc import Callable
from typing import Any

import pytest

from schemas.verdicts import Verdict
from services.errors import InvalidRequest, UnknownField
from tests.unit.validators.mending import apply_fixes

Judge = Callable[..., Verdict]
Change = Callable[[dict[str, Any], dict[str, Any]], None]


def found(verdict: Verdict) -> list[tuple[str, str]]:
    return [(finding.code, finding.path) for finding in verdict.findings]


def test_a_valid_proposal_has_no_findings(
    judge: Judge, proposal: dict[str, Any], order: dict[str, Any]
) -> None:
    verdict = judge("fill", proposal, order=order)
    assert (verdict.ok, verdict.verdict, verdict.findings) == (True, "accepted", [])
    assert verdict.roster is not None
    assert verdict.roster.rows == 13
    assert verdict.validator.policy_version.startswith("1.0+")


def put(worker_id: str, name: str) -> Change:
    def change(proposal: dict[str, Any], _: dict[str, Any]) -> None:
        proposal["fills"][1] = {"worker_id": worker_id, "name": name}

    return change


def set_order(**values: Any) -> Change:
    return lambda _, order: order.update(values)


DEFECTS: dict[str, tuple[Change, str, str]] = {
    "wrong type": (lambda p, _: p["fills"][1].update(name=5), "schema.invalid", "/fills/1/name"),
    "unknown key": (lambda p, _: p.update(note="x"), "schema.invalid", "/note"),
    "unknown key in a fill": (lambda p, _: p["fills"][0].update(pay=3), "schema.invalid", "/fills/0/pay"),
    "missing key": (lambda p, _: p["fills"][1].pop("worker_id"), "schema.invalid", "/fills/1/worker_id"),
    "no list": (lambda p, _: p.update(fills="W-001"), "schema.invalid", "/fills"),
    "no offset": (set_order(start="2026-11-02T22:00:00"), "schema.invalid", ""),
    "no time": (set_order(end="tomorrow"), "schema.invalid", ""),
    "other order": (lambda p, _: p.update(order_id="o-1"), "fill.order_mismatch", "/order_id"),
    "one short": (lambda p, _: p["fills"].pop(), "fill.count_short", "/fills"),
    "one over": (lambda _, o: o.update(count=1), "fill.count_over", "/fills"),
    "unknown worker": (put("W-999", "Robert Young"), "fill.worker_unknown", "/fills/1/worker_id"),
    "id in other case": (put("w-003", "Daniel Johnson"), "fill.worker_unknown", "/fills/1/worker_id"),
    "other name": (put("W-003", "Daniel Johnston"), "fill.name_mismatch", "/fills/1/name"),
    "blank name": (put("W-003", " "), "fill.name_mismatch", "/fills/1/name"),
    "inactive": (put("W-010", "Ivan Petrov"), "fill.worker_inactive", "/fills/1/worker_id"),
    "do not place": (put("W-011", "Lee Parker"), "fill.worker_inactive", "/fills/1/worker_id"),
    "twice": (put("W-001", "Robert Young"), "fill.duplicate_worker", "/fills/1/worker_id"),
    "other role": (put("W-012", "Ruth Baker"), "fill.role_mismatch", "/fills/1/worker_id"),
    "other city": (put("W-013", "Omar Haddad"), "fill.location_mismatch", "/fills/1/worker_id"),
    "blocked": (put("W-014", "Nina Costa"), "fill.client_blocked", "/fills/1/worker_id"),
    "booked over midnight": (put("W-015", "Paul Weber"), "fill.double_booked", "/fills/1/worker_id"),
    "no certificate": (put("W-016", "Sara Lind"), "fill.cert_missing", "/fills/1/worker_id"),
    "runs out before the last day": (put("W-017", "Tom Ek"), "fill.cert_expired", "/fills/1/worker_id"),
    "18 on the second day": (put("W-018", "Kim Novak"), "fill.underage", "/fills/1/worker_id"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_one_defect_is_one_finding(
    judge: Judge, proposal: dict[str, Any], order: dict[str, Any], defect: str
) -> None:
    change, code, path = DEFECTS[defect]
    change(proposal, order)
    verdict = judge("fill", proposal, order=order)
    assert found(verdict) == [(code, path)]
    assert verdict.findings[0].severity == "error"
    whole = path in ("", "/note", "/fills", "/order_id")
    assert verdict.verdict == ("rejected" if whole else "partially_accepted")
    assert not verdict.ok


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_fix_removes_its_finding_and_adds_none(
    judge: Judge, proposal: dict[str, Any], order: dict[str, Any], defect: str
) -> None:
    change, code, _ = DEFECTS[defect]
    change(proposal, order)
    first = judge("fill", proposal, order=order)
    if code == "schema.invalid":
        assert first.findings[0].fix is None
        return
    mended = apply_fixes(proposal, first.findings)
    assert judge("fill", mended, order=order).findings == []


def test_several_defects_at_once_are_all_found_and_all_mended(
    judge: Judge, proposal: dict[str, Any], order: dict[str, Any]
) -> None:
    order["count"] = 4
    order["required_certs"] = []
    proposal["fills"] = [
        {"worker_id": "W-010", "name": "Somebody Else"},
        {"worker_id": "W-001", "name": "Bob Young"},
    ]
    verdict = judge("fill", proposal, order=order)
    assert found(verdict) == [
        ("fill.count_short", "/fills"),
        ("fill.name_mismatch", "/fills/0/name"),
        ("fill.worker_inactive", "/fills/0/worker_id"),
    ]
    assert judge("fill", apply_fixes(proposal, verdict.findings), order=order).findings == []


def test_too_many_drops_the_faulty_ones_first(
    judge: Judge, proposal: dict[str, Any], order: dict[str, Any]
) -> None:
    proposal["fills"] = [
        {"worker_id": "W-999"},
        {"worker_id": "W-001"},
        {"worker_id": "W-010"},
        {"worker_id": "W-003"},
    ]
    mended = apply_fixes(proposal, judge("fill", proposal, order=order).findings)
    assert [fill["worker_id"] for fill in mended["fills"]] == ["W-001", "W-003"]


def test_a_mistyped_id_is_mended_by_the_worker_of_that_name(
    judge: Judge, proposal: dict[str, Any], order: dict[str, Any]
) -> None:
    proposal["fills"][1] = {"worker_id": "W-044", "name": "Khan, Aisha"}
    (finding,) = judge("fill", proposal, order=order).findings
    assert finding.fix == {
        "op": "replace",
        "path": "/fills/1",
        "value": {"worker_id": "W-004", "name": "Aisha Khan"},
    }


def test_all_fills_wrong_is_a_rejection(
    judge: Judge, proposal: dict[str, Any], order: dict[str, Any]
) -> None:
    proposal["fills"] = [{"worker_id": "W-010"}, {"worker_id": "W-011"}]
    assert judge("fill", proposal, order=order).verdict == "rejected"


def test_findings_come_in_the_order_of_their_places(
    judge: Judge, proposal: dict[str, Any], order: dict[str, Any]
) -> None:
    order["count"] = 12
    proposal["fills"] = [{"worker_id": f"X-{number}"} for number in range(12)]
    paths = [finding.path for finding in judge("fill", proposal, order=order).findings]
    assert paths == [f"/fills/{number}/worker_id" for number in range(12)]


@pytest.mark.parametrize(
    ("shift", "free"),
    [
        (("2026-11-02T16:00:00-05:00", "2026-11-02T22:00:00-05:00"), True),  # ends as the other begins
        (("2026-11-03T04:00:00-05:00", "2026-11-03T10:00:00-05:00"), True),  # begins as the other ends
        (("2026-11-03T03:59:00-05:00", "2026-11-03T10:00:00-05:00"), False),
        (("2026-11-03T08:00:00Z", "2026-11-03T12:00:00Z"), False),  # the same instants in another offset
    ],
)
def test_shifts_are_half_open(
    judge: Judge, proposal: dict[str, Any], order: dict[str, Any], shift: tuple[str, str], free: bool
) -> None:
    order |= {"start": shift[0], "end": shift[1]}
    put("W-015", "Paul Weber")(proposal, order)
    expected = [] if free else [("fill.double_booked", "/fills/1/worker_id")]
    assert found(judge("fill", proposal, order=order)) == expected


def test_an_assignment_to_the_same_order_is_no_double_booking(
    judge: Judge, proposal: dict[str, Any], order: dict[str, Any]
) -> None:
    put("W-015", "Paul Weber")(proposal, order)
    order["order_id"] = proposal["order_id"] = "O-77"
    assert judge("fill", proposal, order=order).ok


@pytest.mark.parametrize(
    ("end", "expired"),
    [
        ("2026-11-03T00:00:00-05:00", False),  # ends as the second day begins: the first is the last
        ("2026-11-03T00:00:01-05:00", True),
        ("2026-11-03T04:59:00Z", False),  # in UTC it is the 3rd; in Ohio still the 2nd
        ("2026-11-03T05:01:00Z", True),
    ],
)
def test_a_certificate_holds_through_its_day_at_the_site(
    judge: Judge, proposal: dict[str, Any], order: dict[str, Any], end: str, expired: bool
) -> None:
    order["end"] = end
    put("W-017", "Tom Ek")(proposal, order)
    expected = [("fill.cert_expired", "/fills/1/worker_id")] if expired else []
    assert found(judge("fill", proposal, order=order)) == expected


def test_a_shift_over_the_change_of_clocks_counts_each_time_by_its_own_offset(
    judge: Judge, proposal: dict[str, Any], order: dict[str, Any]
) -> None:
    order |= {"start": "2026-11-01T00:30:00-04:00", "end": "2026-11-01T23:30:00-05:00"}
    assert judge("fill", proposal, order=order).ok


def test_of_several_certificates_the_longest_counts(judge: Judge, order: dict[str, Any]) -> None:
    order |= {"count": 1, "start": "2026-11-04T06:00:00-05:00", "end": "2026-11-04T14:00:00-05:00"}
    verdict = judge("fill", {"order_id": "O-1", "fills": [{"worker_id": "W-001"}]}, order=order)
    assert verdict.findings[0].evidence == {
        "row": 0,
        "cert": "OSHA-10",
        "expires": "2026-11-03",
        "last_day": "2026-11-04",
    }


def test_age_counts_on_the_first_day(judge: Judge, proposal: dict[str, Any], order: dict[str, Any]) -> None:
    order |= {"start": "2026-11-03T00:00:00-05:00"}
    put("W-018", "Kim Novak")(proposal, order)
    assert judge("fill", proposal, order=order).ok


def test_places_and_roles_are_compared_after_normalisation(
    judge: Judge, proposal: dict[str, Any], order: dict[str, Any]
) -> None:
    order |= {"role": " FORK-LIFT driver", "city": "columbus ", "state": "ohio"}
    assert judge("fill", proposal, order=order).ok
    order |= {"city": "Saint Louis", "state": "Missouri", "count": 1}
    assert judge("fill", {"order_id": "O-1", "fills": [{"worker_id": "W-013"}]}, order=order).ok


def test_count_compares_what_is_proposed_valid_or_not(
    judge: Judge, proposal: dict[str, Any], order: dict[str, Any]
) -> None:
    proposal["fills"][0] = proposal["fills"][1] = {"worker_id": "W-010"}
    assert "fill.count_short" not in [code for code, _ in found(judge("fill", proposal, order=order))]


def test_as_of_names_the_rosters_date_and_moves_nothing(
    judge: Judge, proposal: dict[str, Any], order: dict[str, Any]
) -> None:
    verdict = judge("fill", proposal, order=order, as_of="2031-01-01")
    assert verdict.ok
    assert verdict.roster is not None
    assert verdict.roster.as_of == "2031-01-01"


@pytest.mark.parametrize(
    "text", ["", "{", "Sure! Here it is: {}", '{"order_id": NaN}', '{"a": 99999999999999999}']
)
def test_text_that_is_not_json_is_a_finding_on_the_whole(
    judge: Judge, order: dict[str, Any], text: str
) -> None:
    verdict = judge("fill", text, order=order)
    assert found(verdict) == [("schema.invalid", "")]
    assert verdict.verdict == "rejected"


@pytest.mark.parametrize("artifact", [None, 3, [], [{"worker_id": "W-001"}], True])
def test_an_artifact_of_another_shape_is_a_finding_on_the_whole(
    judge: Judge, order: dict[str, Any], artifact: Any
) -> None:
    assert found(judge("fill", artifact, order=order)) == [("schema.invalid", "")]


def test_a_bad_context_is_the_callers_mistake(
    judge: Judge, proposal: dict[str, Any], order: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest) as missing:
        judge("fill", proposal)
    assert missing.value.param == "context.order"
    with pytest.raises(UnknownField) as unknown:
        judge("fill", proposal, order=order, ordr={})
    assert unknown.value.param == "context.ordr"
    with pytest.raises(InvalidRequest) as backwards:
        judge("fill", proposal, order=order | {"end": order["start"]})
    assert backwards.value.param == "context.order.end"


def test_messages_and_evidence_hold_no_personal_data(
    judge: Judge, proposal: dict[str, Any], order: dict[str, Any]
) -> None:
    for number in (10, 11, 12, 13, 14, 15, 16, 17, 18):
        proposal["fills"].append({"worker_id": f"W-0{number}", "name": "Peter Nobody"})
    verdict = judge("fill", proposal, order=order)
    told = " ".join(f"{finding.message} {finding.evidence}" for finding in verdict.findings)
    for secret in ("Petrov", "Ivan", "Nobody", "555", "2008", "example.com"):
        assert secret not in told


def test_an_order_for_any_number_is_answered_from_the_workers_there_are(
    judge: Judge, proposal: dict[str, Any], order: dict[str, Any]
) -> None:
    order["count"] = 2**53 - 1
    (finding,) = judge("fill", proposal, order=order).findings
    assert (finding.code, finding.fix) == ("fill.count_short", None)
