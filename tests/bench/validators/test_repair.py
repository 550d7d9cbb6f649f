"""How often the small model's proposals are right, at once or after repair; and that no phantom passes."""

import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pyarrow.parquet as pq
import pytest

from schemas.iterate import IterateResponse, Outcome
from schemas.verdicts import Verdict
from stillhouse.world import Spec, write
from tests.bench.intervals import Share
from tests.processes import running

pytestmark = [pytest.mark.bench, pytest.mark.enable_socket]

MODEL = "ollama/smollm2:135m"
SEED = int(os.environ.get("REPAIR_SEED", "20261026"))
ORDERS = int(os.environ.get("REPAIR_ORDERS", "50"))
ATTEMPTS_MAX = 3
CANDIDATES_A_SEAT = 3
OUTCOMES: tuple[Outcome, ...] = ("first_pass", "repaired", "failed")

SYSTEM = (
    "You fill job orders for a staffing agency. Choose workers from the list, by their id. Answer with JSON"
    ' only, like {"order_id":"JO-1","fills":[{"worker_id":"W-1"},{"worker_id":"W-2"}]}.'
)


@dataclass(frozen=True)
class Town:
    """An agency, its open orders, and daemons that know it."""

    orders: list[dict[str, Any]]
    workers: list[dict[str, Any]]
    chatd: httpx.Client
    validators: httpx.Client


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder: Path = tmp_path_factory.mktemp("town")
    write(folder / "world", Spec(seed=SEED))
    roster = folder / "world" / "roster.parquet"
    lines = (folder / "world" / "orders.jsonl").read_bytes().splitlines()
    with (
        running("modeld", folder) as modeld,
        running("validators", folder, env={"VALIDATORS_ROSTER": str(roster)}) as validators,
        running(
            "chatd", folder, env={"OLLAMA_HOST": modeld.url, "CHATD_VALIDATORS_URL": validators.url}
        ) as chatd,
        httpx.Client(base_url=chatd.url, timeout=300, trust_env=False) as asking,
        httpx.Client(base_url=validators.url, timeout=30, trust_env=False) as judging,
    ):
        modeld.wait_until_ready()
        validators.wait_until_ready()
        orders = random.Random(SEED).sample([orjson.loads(line) for line in lines], ORDERS)
        yield Town(orders, pq.read_table(roster).to_pylist(), asking, judging)


def candidates(order: dict[str, Any], workers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Whom a search by city and role would show: some are inactive, blocked, booked, or lack a card."""
    found = [
        worker
        for worker in workers
        if (worker["city"], worker["state"]) == (order["city"], order["state"])
        and order["role"] in worker["roles"]
    ]
    random.Random(order["order_id"]).shuffle(found)
    return found[: max(8, CANDIDATES_A_SEAT * order["count"])]


def body_of(order: dict[str, Any], shown: Sequence[dict[str, Any]]) -> dict[str, Any]:
    said = [
        f"Order {order['order_id']}: {order['count']} {order['role']} in {order['city']}, {order['state']}.",
        "Workers:",
    ]
    for worker in shown:
        cards = ", ".join(cert["code"] for cert in worker["certs"]) or "none"
        said.append(f"{worker['worker_id']} {worker['first_name']} {worker['last_name']}, cards: {cards}")
    said.append(f"Choose exactly {order['count']} different workers.")
    return {
        "model": MODEL,
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "\n".join(said)}],
        "validate": {"kind": "fill", "context": {"order": order}},
        "attempts_max": ATTEMPTS_MAX,
        "temperature": 0,
    }


def ask(town: Town, order: dict[str, Any]) -> IterateResponse:
    answer = town.chatd.post("/v1/iterate", json=body_of(order, candidates(order, town.workers)))
    assert answer.status_code == 200, answer.text
    return IterateResponse.model_validate_json(answer.content)


def check_accepted(town: Town, order: dict[str, Any], result: IterateResponse) -> None:
    """Nobody takes the loop's word: the ids are looked up in the file, and validators is asked again."""
    assert isinstance(result.artifact, dict)
    fills = result.artifact["fills"]
    assert isinstance(fills, list)
    ids = [fill["worker_id"] for fill in fills if isinstance(fill, dict)]
    assert len(ids) == len(fills) == order["count"]
    assert set(ids) <= {worker["worker_id"] for worker in town.workers}, "a phantom worker was accepted"
    body = {"kind": "fill", "artifact": result.artifact, "context": {"order": order}}
    again = Verdict.model_validate_json(town.validators.post("/v1/validate", json=body).content)
    assert again.ok


def fillable(town: Town, order: dict[str, Any]) -> bool:
    """Whether the roster has enough people for it: the fix for an empty proposal names them all."""
    nobody = {"order_id": order["order_id"], "fills": []}
    body = {"kind": "fill", "artifact": nobody, "context": {"order": order}}
    verdict = Verdict.model_validate_json(town.validators.post("/v1/validate", json=body).content)
    return any(finding.code == "fill.count_short" and finding.fix for finding in verdict.findings)


def test_proposals_of_the_small_model(town: Town) -> None:
    results = []
    for order in town.orders:
        result = ask(town, order)
        if result.ok:
            check_accepted(town, order, result)
        else:
            assert result.outcome == "failed"
        results.append(result)
    outcomes = Counter(result.outcome for result in results)
    assert sum(outcomes[name] for name in OUTCOMES) == ORDERS
    print(f"\n{ORDERS} job orders of seed {SEED}, {MODEL}, at most {ATTEMPTS_MAX} attempts:")
    for name in OUTCOMES:
        print(f"  {name}: {Share.of(outcomes[name], ORDERS)}")
    wrong_at_first = ORDERS - outcomes["first_pass"]
    if wrong_at_first:
        print(f"  repaired of those wrong at first: {Share.of(outcomes['repaired'], wrong_at_first)}")
    possible = sum(fillable(town, order) for order in town.orders)
    right = outcomes["first_pass"] + outcomes["repaired"]
    print(f"  right in the end, of those that the roster can fill: {Share.of(right, possible)}")
    codes = Counter(
        finding.code for result in results for finding in result.verdict.findings if not result.ok
    )
    print(f"  attempts: {sum(len(result.attempts) for result in results)}; codes of failures: {dict(codes)}")
    print(f"  {right} accepted proposals looked up on the roster and accepted again, no phantom among them")
