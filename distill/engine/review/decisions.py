"""What people decided on a piece of evidence, and what of it stands. Pure functions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Json = Mapping[str, Any]
Standing = Literal["none", "accept", "reject", "correct", "mixed"]


@dataclass(frozen=True, slots=True)
class Decided:
    """Who decided what, and when."""

    review_id: str
    ts: str
    by: str
    decision: str


def latest(reviews: Iterable[Json]) -> dict[str, str]:
    """The latest decision of each reviewer, by name. `reviews` are in the order of their times."""
    return {one["by"]: one["decision"] for one in reviews}


def standing(reviews: Iterable[Json]) -> Standing:
    """What the reviewers say together: the decision that all of them came to last, `mixed` or `none`."""
    decisions = set(latest(reviews).values())
    if len(decisions) > 1:
        return "mixed"
    decision: Standing = decisions.pop() if decisions else "none"  # type: ignore[assignment] # the schema's own words
    return decision


def correction_that_stands(reviews: Iterable[Json]) -> Json | None:
    """The latest review that corrects, where all reviewers came to that; None otherwise."""
    given = list(reviews)
    if standing(given) != "correct":
        return None
    return next(one for one in reversed(given) if one["decision"] == "correct")
