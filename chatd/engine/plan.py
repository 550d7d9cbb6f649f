"""Whose turn it is, and how much is left: attempts, tokens, time."""

import time
from collections.abc import Sequence

from schemas.runs import Usage


class Plan:
    """Whose turn it is. The attempts are shared out evenly, the earlier models get what is left over.

    A model that makes no progress hands its unused attempts on to the next.
    """

    def __init__(self, models: Sequence[str], attempts_max: int) -> None:
        share, extra = divmod(attempts_max, len(models))
        self._turns = [(model, share + (index < extra)) for index, model in enumerate(models)]
        self._left = 0
        self._model: str | None = None

    def next(self, *, stuck: bool) -> str | None:
        """The model of the next attempt, None when there is none. `stuck`: the last one did not help."""
        if self._model is None or stuck or self._left == 0:
            if not self._turns:
                return None
            self._model, share = self._turns.pop(0)
            self._left += share
        self._left -= 1
        return self._model


class Budget:
    """Tokens and seconds for all attempts together. A call whose tokens nobody counted costs `unknown`."""

    def __init__(self, *, tokens: int, seconds: float, unknown: int) -> None:
        self._tokens = tokens
        self._unknown = unknown
        self._until = time.monotonic() + seconds

    def spend(self, usage: Usage) -> None:
        known = [count for count in (usage.prompt_tokens, usage.completion_tokens) if count is not None]
        self._tokens -= sum(known) if known else self._unknown

    @property
    def left_s(self) -> float:
        return max(0.0, self._until - time.monotonic())

    @property
    def spent(self) -> bool:
        return self._tokens <= 0 or self.left_s == 0
