"""Leaving in order: requests in flight finish, new ones are turned away."""

import time
from typing import Final

LINGER_S: Final = 0.2
"""Requests are still turned away for so long after the last one is done.

Who keeps connections to us learns from it to go elsewhere, instead of writing into one that we just close.
"""


class Drain:
    """Counts requests in flight, and knows when the last one is done."""

    def __init__(self, timeout_s: float) -> None:
        self.in_flight = 0
        self._timeout_s = timeout_s
        self._began = 0.0
        self._deadline: float | None = None

    @property
    def draining(self) -> bool:
        return self._deadline is not None

    def begin(self) -> None:
        if self._deadline is None:
            self._began = time.monotonic()
            self._deadline = self._began + self._timeout_s

    @property
    def finished(self) -> bool:
        """Whether the process may stop: it was asked to, and nobody is waiting (or not for much longer)."""
        if self._deadline is None:
            return False
        now = time.monotonic()
        return now >= self._deadline or (self.in_flight == 0 and now >= self._began + LINGER_S)
