"""What `/v1/chat/explain` says: which models would be asked, in which order, and why, without asking any."""

from typing import Literal

from schemas.base import Measure, Model, Tally


class ExplainedCandidate(Model):
    """One model that may answer. `place` counts from 1 in the order of asking; null when it is passed over.

    `lacks` are the fields of the request that it cannot honour, `dropped` those of them that are left out
    for it. `answers_in_ms` is how long it takes lately; null when nobody asked it within a minute.
    """

    model: str
    place: Tally | None
    when: Literal["first", "candidate", "context", "policy"]
    reason: str
    circuit: Literal["closed", "open", "half_open"]
    in_flight: Tally
    waiting: Tally
    concurrency_max: Tally | None
    answers_in_ms: Measure | None
    cost_max_usd: Measure | None
    lacks: list[str] = []
    dropped: list[str] = []


class Explanation(Model):
    """How a request would be carried out now.

    `cache` is `off`, or whether the answer is there already; `budget_left_usd` is null without a budget.
    """

    model: str
    alias: bool
    strategy: Literal["ordered", "weighted", "least_busy", "fastest"]
    candidates: list[ExplainedCandidate]
    attempts_max: Tally
    hedge_first_token_ms: Measure | None
    cache: Literal["off", "hit", "miss"]
    budget_left_usd: Measure | None
    config_hash: str
