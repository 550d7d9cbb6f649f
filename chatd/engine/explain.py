"""Says which candidates a request would be put to, and why, without calling any."""

from collections.abc import Iterator

from chatd.engine.calls import Order
from chatd.engine.candidates import Target, ranked
from chatd.engine.dispatch import Dispatcher
from chatd.engine.doors import Doors
from schemas.explain import ExplainedCandidate, Explanation
from services import context


def explain(dispatcher: Dispatcher, order: Order) -> Explanation:
    """What would be done with a request at this moment. Weighted choices are drawn anew each time."""
    request = context.current()
    who = request.principal if request else None
    config = order.snapshot.config
    hedge_s = order.route.hedge_s
    return Explanation(
        model=order.route.asked,
        alias=order.route.alias,
        strategy=order.route.strategy,
        candidates=list(_candidates(dispatcher.doors, order, who)),
        attempts_max=dispatcher.attempts_max(order),
        hedge_first_token_ms=None if hedge_s is None else hedge_s * 1000,
        cache=dispatcher.cached(order, who),
        budget_left_usd=dispatcher.doors.ledger.left(who, config.budgets),
        config_hash=order.snapshot.hash,
    )


def _candidates(doors: Doors, order: Order, who: str | None) -> Iterator[ExplainedCandidate]:
    route = order.route
    rules = order.snapshot.config.breaker
    targets = ranked(
        route.targets,
        route.strategy,
        lambda target: doors.standing(target, rules),
        stream=order.request.stream,
    )
    fitting = [target for target in targets if not doors.lacks(target, order)] or targets
    place = 0
    for target in targets:
        obstacle = _obstacle(doors, order, target, who, fitting)
        place += obstacle is None
        yield _one(doors, order, target, obstacle, place=place)
    for target in route.context:
        yield _one(doors, order, target, "asked when the prompt is too long for the others", when="context")
    for target in route.policy:
        yield _one(doors, order, target, "asked when the policy of another refuses", when="policy")


def _obstacle(
    doors: Doors, order: Order, target: Target, who: str | None, fitting: list[Target]
) -> str | None:
    """Why a candidate is passed over, or None."""
    if target not in fitting:
        return f"lacks {', '.join(doors.lacks(target, order))}, which another one has"
    if (closed := doors.obstacle(order, target, others=len(fitting) > 1)) is not None:
        return closed.message
    rules = order.snapshot.config.budgets
    refusal = doors.ledger.refusal(who, doors.price(order, target), rules)
    return None if refusal is None else refusal.message


def _one(
    doors: Doors,
    order: Order,
    target: Target,
    reason: str | None,
    *,
    place: int | None = None,
    when: str | None = None,
) -> ExplainedCandidate:
    standing = doors.standing(target, order.snapshot.config.breaker)
    lines = doors.before(target)
    passed_over = reason is not None
    answers_in_s = standing.answers_in_s(stream=order.request.stream)
    lacks = target.provider.lacking(order.request)
    kind = when or ("first" if place == 1 and not passed_over else "candidate")
    return ExplainedCandidate.model_validate(
        {
            "model": target.id,
            "place": None if passed_over else place,
            "when": kind,
            "reason": reason or _why(doors, order, target, place or 0),
            "circuit": standing.breaker.state,
            "in_flight": standing.in_flight,
            "waiting": sum(line.waiting for line in lines),
            "concurrency_max": min(
                (line.bounds.concurrency_max for line in lines if line.bounds.concurrency_max is not None),
                default=None,
            ),
            "answers_in_ms": None if answers_in_s is None else round(answers_in_s * 1000, 3),
            "cost_max_usd": doors.price(order, target),
            "lacks": [lack.param for lack in lacks],
            "dropped": [lack.param for lack in lacks if lack.droppable and order.caller.allow_drop],
        }
    )


def _why(doors: Doors, order: Order, target: Target, place: int) -> str:
    """Why a candidate has its place."""
    if not all(line.has_room(doors.tokens(order, target)) for line in doors.before(target)):
        return "has no room at this moment: passed over while another has, waited for otherwise"
    if not order.route.alias:
        return "the model that was asked for"
    told = {
        "ordered": "by the order of the alias",
        "weighted": "as drawn by the weights",
        "least_busy": "by the number of calls under way",
        "fastest": "by the time it takes to answer, unknown ones first",
    }
    return f"{place}. {told[order.route.strategy]}"
