"""What a replay can be told: whether that makes sense together, and what of it makes one replay another."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from distill.backends import Peers
from schemas.canonical import content_id
from schemas.replay import ReplayOptions
from services.errors import InvalidRequest

PASSING: Final = {"concurrency", "budget_calls", "budget_tokens", "budget_usd", "name", "fresh"}
"""How fast and how far a replay goes, and under which name: not what it comes to."""
ARM: Final = {"models", "recorded", "attempts_max", "temperature", "seed", "contexts", "collection"}
"""What the manifest tells of how tasks are done."""
SELECTION: Final = {
    "category", "role", "kind", "since", "until", "dataset", "split", "evidence_ids", "like", "limit",
}  # fmt: skip
"""What it tells of which ones."""


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """What the operator allows, and how peers are reached. A store is a cassette or a journal."""

    peers: Callable[[], Peers]
    concurrency_max: int
    store_bytes_max: int


def checked(options: ReplayOptions, settings: ReplaySettings) -> ReplayOptions:
    """The options, where they make sense together. Raises `InvalidRequest`."""
    if (options.models is None) == (not options.recorded):
        raise InvalidRequest("exactly one of `models` and `recorded` is needed", param="models")
    if options.recorded and (options.contexts or options.repeats > 1):
        raise InvalidRequest(
            "`recorded` asks no model, so there are neither `contexts` nor `repeats`", param="recorded"
        )
    if options.models is not None and options.attempts_max < len(options.models):
        raise InvalidRequest(
            f"`attempts_max` is {options.attempts_max}; each of {len(options.models)} `models` needs one",
            param="attempts_max",
        )
    if options.concurrency > settings.concurrency_max:
        raise InvalidRequest(
            f"`concurrency` is {options.concurrency}; at most {settings.concurrency_max} are allowed",
            param="concurrency",
        )
    if options.budget_calls is not None and options.budget_calls < options.attempts_max:
        raise InvalidRequest(
            f"`budget_calls` is {options.budget_calls}; a task may need {options.attempts_max}, as"
            " `attempts_max` says",
            param="budget_calls",
        )
    if options.split is not None and options.dataset is None:
        raise InvalidRequest("`split` is one of a `dataset`, which is missing", param="split")
    return options


def identity(options: ReplayOptions) -> str:
    """What a replay is known by: all that shapes its results, and not how fast or how far it goes."""
    return content_id(options.model_dump(mode="json", exclude=PASSING))
