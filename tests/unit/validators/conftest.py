"""A small agency: workers of whom each has one thing against them, an order for two, the parts around."""

import asyncio
import copy
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pytest

from schemas.verdicts import ValidateRequest, Verdict
from services.telemetry import CollectorRegistry
from validators.app import SHIPPED_POLICY
from validators.backends import AssignmentFact, CertificateFact, FakeRoster, WorkerFacts
from validators.engine import (
    Basis,
    EmailValidator,
    Engine,
    FillValidator,
    FixedBasis,
    JsonSchemaValidator,
    Metrics,
    Policy,
    Rules,
    SmsValidator,
    Threads,
    Turns,
)

Judge = Callable[..., Verdict]


def worker(row: int, worker_id: str, first_name: str, last_name: str, **changes: Any) -> WorkerFacts:
    facts: dict[str, Any] = {
        "status": "active",
        "roles": ["Forklift Driver"],
        "city": "Columbus",
        "state": "Ohio",
        "phone": f"+1 614 555 01{row:02d}",
        "email": f"w{row}@example.com",
        "date_of_birth": date(1990, 5, 17),
        "certs": [CertificateFact("OSHA-10", date(2026, 11, 3))],
    }
    return WorkerFacts(row, worker_id, first_name, last_name, **(facts | changes))


WORKERS = [
    worker(0, "W-001", "Robert", "Young"),
    worker(1, "W-002", "María José", "O'Connor-Núñez"),
    worker(2, "W-003", "Daniel", "Johnson"),
    worker(3, "W-004", "Aisha", "Khan"),
    worker(4, "W-010", "Ivan", "Petrov", status="inactive"),
    worker(5, "W-011", "Lee", "Parker", status="do_not_place"),
    worker(6, "W-012", "Ruth", "Baker", roles=["Janitor"]),
    worker(7, "W-013", "Omar", "Haddad", city="St. Louis", state="MO"),
    worker(8, "W-014", "Nina", "Costa", blocked_clients=["C-9"]),
    worker(
        9,
        "W-015",
        "Paul",
        "Weber",
        assignments=[
            AssignmentFact("O-77", datetime(2026, 11, 3, 3, tzinfo=UTC), datetime(2026, 11, 3, 9, tzinfo=UTC))
        ],
    ),
    worker(10, "W-016", "Sara", "Lind", certs=[]),
    worker(11, "W-017", "Tom", "Ek", certs=[CertificateFact("OSHA-10", date(2026, 11, 2))]),
    worker(12, "W-018", "Kim", "Novak", date_of_birth=date(2008, 11, 3)),
]

# An overnight shift, 22:00 to 06:00 in Columbus.
ORDER = {
    "order_id": "O-1",
    "client_id": "C-9",
    "role": "Forklift Operator",
    "city": "Columbus",
    "state": "OH",
    "count": 2,
    "start": "2026-11-02T22:00:00-05:00",
    "end": "2026-11-03T06:00:00-05:00",
    "required_certs": ["OSHA-10"],
    "age_min": 18,
}
PROPOSAL = {
    "order_id": "O-1",
    "fills": [
        {"worker_id": "W-001", "name": "Robert Young"},
        {"worker_id": "W-002", "name": "María José O'Connor-Núñez"},
    ],
}


@pytest.fixture(scope="session")
def policy() -> Policy:
    return Policy(SHIPPED_POLICY.read_bytes())


@pytest.fixture(scope="session")
def roster(policy: Policy) -> FakeRoster:
    return FakeRoster(WORKERS, policy)


@pytest.fixture
def order() -> dict[str, Any]:
    return copy.deepcopy(ORDER)


@pytest.fixture
def proposal() -> dict[str, Any]:
    return copy.deepcopy(PROPOSAL)


@pytest.fixture
def engine(policy: Policy, roster: FakeRoster) -> Engine:
    return engine_of(policy, roster)


def engine_of(policy: Policy, roster: FakeRoster | None, *, artifact_bytes_max: int = 64 * 1024) -> Engine:
    rules = Rules(
        policy,
        [
            FillValidator(policy, candidates_max=100),
            EmailValidator(policy),
            SmsValidator(policy),
            JsonSchemaValidator(policy, schema_bytes_max=65536, expansion_max=1000, findings_max=50),
        ],
    )
    return Engine(
        FixedBasis(Basis(rules, roster)),
        Threads(threads=1, waiting_max=4),
        Turns(batches_max=2),
        Metrics(CollectorRegistry()),
        artifact_bytes_max=artifact_bytes_max,
    )


@pytest.fixture
def judge(engine: Engine) -> Judge:
    def judge(kind: str, artifact: Any, **context: Any) -> Verdict:
        request = ValidateRequest(kind=kind, artifact=artifact, context=context)
        return Verdict.model_validate_json(asyncio.run(engine.validate(request)).to_json())

    return judge
