"""Rules of the policy beside the contract's, zones of sites, and who is the nearest."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pytest

from schemas.verdicts import Verdict
from services.errors import InvalidRequest
from validators.app import SHIPPED_POLICY
from validators.backends import AssignmentFact, CertificateFact, FakeRoster, WorkerFacts
from validators.engine import FillValidator, Policy
from validators.engine.findings import Found

Judge = Callable[..., Verdict]


def worker(row: int, worker_id: str, first_name: str, last_name: str, **changes: Any) -> WorkerFacts:
    """Whom nothing stands against, but for the changes."""
    facts: dict[str, Any] = {
        "status": "active",
        "roles": ["Forklift Drivers"],
        "city": "Columbus",
        "state": "Ohio",
        "phone": "+1 614 555 0100",
        "email": f"w{row}@example.com",
        "date_of_birth": date(1990, 5, 17),
        "certs": [CertificateFact("OSHA-10", date(2026, 11, 3))],
    }
    return WorkerFacts(row, worker_id, first_name, last_name, **(facts | changes))


EDITS: dict[str, tuple[str, str]] = {
    "travel": ("travel_minutes = 0 ", "travel_minutes = 45 "),
    "hours": ("week_hours_max = 0 ", "week_hours_max = 40 "),
    "sunday": ('week_begins = "monday"', 'week_begins = "sunday"'),
    "age": ("age_min_by_role = {} ", 'age_min_by_role = { "fork lift drivers" = 18 } '),
}


def policy_with(*names: str) -> Policy:
    text = SHIPPED_POLICY.read_text()
    for name in names:
        before, after = EDITS[name]
        assert before in text
        text = text.replace(before, after)
    return Policy(text.encode())


def busy(*times: tuple[int, int, int]) -> list[AssignmentFact]:
    """Assignments on days of November 2026, from one hour UTC to another."""
    return [
        AssignmentFact(
            f"O-{day}", datetime(2026, 11, day, begin, tzinfo=UTC), datetime(2026, 11, day, end, tzinfo=UTC)
        )
        for day, begin, end in times
    ]


def found(policy: Policy, order: dict[str, Any], *others: Any, **facts: Any) -> list[Found]:
    """What is found on a proposal of one worker with these facts."""
    who = worker(0, "W-1", "Ada", "Reyes", **facts)
    roster = FakeRoster([who, *others], policy)
    proposal: dict[str, Any] = {"order_id": order["order_id"], "fills": [{"worker_id": "W-1"}]}
    context: dict[str, Any] = {"order": order | {"count": 1}}
    return FillValidator(policy, candidates_max=100).check(proposal, context, lambda: roster).findings


@pytest.mark.parametrize(
    ("begin", "end", "kinds"),
    [
        ("2026-11-02T14:00:00Z", "2026-11-02T20:00:00Z", ["overlap"]),
        ("2026-11-02T12:30:00Z", "2026-11-02T20:00:00Z", ["travel"]),
        ("2026-11-02T12:44:59Z", "2026-11-02T20:00:00Z", ["travel"]),
        ("2026-11-02T12:45:00Z", "2026-11-02T20:00:00Z", []),
        ("2026-11-02T02:00:00Z", "2026-11-02T05:30:00Z", ["travel"]),
    ],
)
def test_the_way_between_two_sites_takes_time(
    order: dict[str, Any], begin: str, end: str, kinds: list[str]
) -> None:
    order |= {"start": begin, "end": end}
    held = busy((2, 6, 12)) if kinds != ["overlap"] else busy((2, 6, 15))
    findings = found(policy_with("travel"), order, assignments=held)
    assert [finding.code for finding in findings] == ["fill.double_booked"] * len(kinds)
    assert [finding.evidence["kind"] for finding in findings if finding.evidence] == kinds
    if kinds != ["overlap"]:
        assert found(policy_with(), order, assignments=held) == []


def test_hours_of_a_week_are_counted_at_the_site(order: dict[str, Any]) -> None:
    order |= {"start": "2026-11-06T08:00:00-05:00", "end": "2026-11-06T16:00:00-05:00"}
    four_days = busy((2, 13, 21), (3, 13, 21), (4, 13, 21), (5, 13, 21))
    certs = [CertificateFact("OSHA-10", None)]
    assert found(policy_with("hours"), order, assignments=four_days, certs=certs) == []
    (finding,) = found(policy_with("hours"), order, assignments=[*four_days, *busy((7, 13, 14))], certs=certs)
    assert (finding.code, finding.path) == ("fill.hours_exceeded", "/fills/0/worker_id")
    assert finding.evidence == {"row": 0, "week": "2026-11-02", "hours": 41.0, "hours_max": 40.0}
    # 04:00 UTC on Monday the 9th is still Sunday in Ohio, and 06:00 is not.
    assert found(policy_with("hours"), order, assignments=[*four_days, *busy((9, 3, 4))], certs=certs) != []
    assert found(policy_with("hours"), order, assignments=[*four_days, *busy((9, 6, 7))], certs=certs) == []
    # A week that begins on Sunday ends on the 7th.
    sunday = policy_with("hours", "sunday")
    assert found(sunday, order, assignments=[*four_days, *busy((8, 13, 14))], certs=certs) == []


def test_hours_of_the_same_order_count_once(order: dict[str, Any]) -> None:
    order |= {"start": "2026-11-02T00:00:00-05:00", "end": "2026-11-03T16:00:00-05:00"}
    same = AssignmentFact("O-1", datetime(2026, 11, 2, 5, tzinfo=UTC), datetime(2026, 11, 3, 21, tzinfo=UTC))
    assert found(policy_with("hours"), order, assignments=[same]) == []


def test_a_role_may_have_an_age(order: dict[str, Any]) -> None:
    order["age_min"] = None
    assert found(policy_with(), order, date_of_birth=date(2009, 1, 1)) == []
    (finding,) = found(policy_with("age"), order, date_of_birth=date(2009, 1, 1))
    assert finding.code == "fill.underage"
    order["age_min"] = 21
    (stricter,) = found(policy_with("age"), order, date_of_birth=date(2006, 1, 1))
    assert stricter.evidence == {"row": 0, "age": 20, "age_min": 21}


@pytest.mark.parametrize(
    ("city", "state", "end", "expired"),
    [
        ("El Paso", "TX", "2026-11-04T07:00:00Z", False),  # midnight in El Paso, one o'clock in Dallas
        ("El Paso", "TX", "2026-11-04T07:00:01Z", True),
        ("Dallas", "TX", "2026-11-04T06:00:00Z", False),
        ("Dallas", "TX", "2026-11-04T06:30:00Z", True),
        ("Pensacola", "Florida", "2026-11-04T06:00:00Z", False),
        ("Miami", "FL", "2026-11-04T06:00:00Z", True),
        ("Coeur d\u2019Alene", "ID", "2026-11-04T08:00:00Z", False),
        ("Boise", "ID", "2026-11-04T08:00:00Z", True),
        ("Knoxville", "TN", "2026-11-04T05:30:00Z", True),
        ("Nashville", "TN", "2026-11-04T05:30:00Z", False),
        ("Evansville", "IN", "2026-11-04T06:00:00Z", False),
        ("Paducah", "KY", "2026-11-04T06:00:00Z", False),
        ("Scottsbluff", "NE", "2026-11-04T07:00:00Z", False),
        ("Columbus", "OH", "2026-11-03T23:30:00-08:00", True),  # written by an office in California
        ("Columbus", "OH", "2026-11-03T20:30:00-08:00", False),
        ("Hyannis", "NE", "2026-11-03T23:30:00-07:00", False),  # not in the table; its state has this offset
        ("Oslo", "Norway", "2026-11-03T23:30:00+01:00", False),
    ],
)  # fmt: skip
def test_the_last_day_is_that_of_the_site(
    order: dict[str, Any], city: str, state: str, end: str, expired: bool
) -> None:
    order |= {"city": city, "state": state, "start": "2026-11-03T12:00:00Z", "end": end}
    findings = found(policy_with(), order, city=city, state=state)
    assert [finding.code for finding in findings] == (["fill.cert_expired"] if expired else [])


def test_a_spring_night_without_its_second_hour(order: dict[str, Any]) -> None:
    """From 22:00 to 06:00 over the change to summer time are seven hours, and the days are two."""
    order |= {"start": "2026-03-07T22:00:00-05:00", "end": "2026-03-08T06:00:00-04:00"}
    next_day = AssignmentFact(
        "O-2", datetime(2026, 3, 8, 10, tzinfo=UTC), datetime(2026, 3, 8, 18, tzinfo=UTC)
    )
    held = [CertificateFact("OSHA-10", date(2026, 3, 8))]
    assert found(policy_with(), order, assignments=[next_day], certs=held) == []
    short = [CertificateFact("OSHA-10", date(2026, 3, 7))]
    assert [f.code for f in found(policy_with(), order, certs=short)] == ["fill.cert_expired"]


def test_of_those_who_are_free_the_one_nearest_to_the_worker_who_falls_out_is_named(
    order: dict[str, Any],
) -> None:
    others = [
        worker(1, "W-2", "Bo", "Ek", zip="10001"),
        worker(2, "W-3", "Cy", "Fu", zip="43299"),
        worker(3, "W-4", "Di", "Go", zip="43215"),
        worker(4, "W-5", "Ed", "Ho", zip="43215", blocked_clients=["C-9"]),
    ]
    (finding,) = found(policy_with(), order, *others, status="inactive", zip="43215")
    assert finding.fix is not None
    assert finding.fix["value"] == {"worker_id": "W-4", "name": "Di Go"}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        (lambda order: order.update(count="1"), "context.order.count"),
        (lambda order: order.update(count=True), "context.order.count"),
        (lambda order: order.update(age_min="18"), "context.order.age_min"),
        (lambda order: order.update(start=5), "context.order.start"),
        (lambda order: order.update(required_certs="OSHA-10"), "context.order.required_certs"),
        (lambda order: order.pop("client_id"), "context.order.client_id"),
    ],
)
def test_a_context_of_other_types_is_refused(
    judge: Judge,
    order: dict[str, Any],
    proposal: dict[str, Any],
    change: Callable[[dict[str, Any]], Any],
    param: str,
) -> None:
    change(order)
    with pytest.raises(InvalidRequest) as error:
        judge("fill", proposal, order=order)
    assert error.value.param == param


@pytest.mark.parametrize("as_of", ["garbage", "", "2026-13-01", "2026-11-02T06:00:00", "02.11.2026"])
def test_an_as_of_that_is_no_date_is_refused(
    judge: Judge, order: dict[str, Any], proposal: dict[str, Any], as_of: str
) -> None:
    with pytest.raises(InvalidRequest) as error:
        judge("fill", proposal, order=order, as_of=as_of)
    assert error.value.param == "context.as_of"
    named = judge("fill", proposal, order=order, as_of="2026-11-02T06:00:00Z").roster
    assert named is not None
    assert named.as_of == "2026-11-02T06:00:00Z"


def test_a_name_that_many_bear_names_nobody(order: dict[str, Any]) -> None:
    policy = policy_with()
    twins = [worker(1, "W-2", "Bo", "Ek"), worker(2, "W-3", "Ek", "Bo"), worker(3, "W-4", "Di", "Go")]
    roster = FakeRoster([worker(0, "W-1", "Ada", "Reyes"), *twins], policy)
    check = FillValidator(policy, candidates_max=100).check
    proposal: dict[str, Any] = {"order_id": "O-1", "fills": [{"worker_id": "W-99", "name": "Go, Di"}]}
    (finding,) = check(proposal, {"order": order | {"count": 1}}, lambda: roster).findings
    assert finding.fix is not None
    assert finding.fix["value"] == {"worker_id": "W-4", "name": "Di Go"}
    proposal = {"order_id": "O-1", "fills": [{"worker_id": "W-99", "name": "Bo Ek"}]}
    (finding,) = check(proposal, {"order": order | {"count": 1}}, lambda: roster).findings
    assert finding.fix is not None
    assert finding.fix["value"] == {"worker_id": "W-1", "name": "Ada Reyes"}
