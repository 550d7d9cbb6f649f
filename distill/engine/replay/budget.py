"""How far a replay may go: model calls, tokens, money."""

from dataclasses import dataclass, field
from typing import Final

from schemas.replay import ReplayOptions
from schemas.runs import Usage
from services.errors import Conflict

TRILLIONTHS: Final = 10**12


@dataclass(slots=True)
class Spent:
    """What tasks have used. Tokens and money are None as soon as they are unknown of one call.

    Money is added up in whole `TRILLIONTHS` of a dollar: then no sum depends on which task was done first.
    """

    calls: int = 0
    tokens: int | None = 0
    trillionths: int | None = 0

    @property
    def cost_usd(self) -> float | None:
        return None if self.trillionths is None else self.trillionths / TRILLIONTHS

    def add(self, calls: int, usage: Usage) -> None:
        self.calls += calls
        tokens = _tokens(usage)
        self.tokens = None if self.tokens is None or tokens is None else self.tokens + tokens
        cost = None if usage.cost_usd is None else round(usage.cost_usd * TRILLIONTHS)
        self.trillionths = None if self.trillionths is None or cost is None else self.trillionths + cost


def _tokens(usage: Usage) -> int | None:
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    return usage.prompt_tokens + usage.completion_tokens


@dataclass(slots=True)
class Budget:
    """Lets tasks begin while there is something left. No more calls are made than were allowed.

    Tokens and money are known only afterwards: they may be exceeded by what the tasks under way use.
    """

    options: ReplayOptions
    spent: Spent = field(default_factory=Spent)
    under_way: int = 0

    @property
    def exhausted(self) -> bool:
        """Whether nothing more may begin, whatever the tasks under way will have used."""
        options, spent = self.options, self.spent
        return (
            (options.budget_calls is not None and spent.calls + options.attempts_max > options.budget_calls)
            or (options.budget_tokens is not None and (spent.tokens or 0) >= options.budget_tokens)
            or (options.budget_usd is not None and (spent.cost_usd or 0.0) >= options.budget_usd)
        )

    @property
    def may_begin(self) -> bool:
        """Whether one more task may begin now, beside those under way."""
        if self.exhausted:
            return False
        most = self.options.budget_calls
        reserved = (self.under_way + 1) * self.options.attempts_max
        return most is None or self.spent.calls + reserved <= most

    def settle(self, calls: int, usage: Usage) -> None:
        """Take in what a task has used. Raises `Conflict` when a budget can no longer be kept to."""
        self.spent.add(calls, usage)
        for name, asked, known in (
            ("budget_tokens", self.options.budget_tokens, self.spent.tokens),
            ("budget_usd", self.options.budget_usd, self.spent.cost_usd),
        ):
            if asked is not None and known is None:
                raise Conflict(
                    f"`{name}` is {asked:g}, and a model that answered does not say what it used; give the"
                    " model a price in chatd.toml, or set `budget_calls` instead",
                    code="budget_not_measurable",
                    param=name,
                )
