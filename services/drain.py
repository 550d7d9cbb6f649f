"""Leaving in order: requests in flight finish, new ones are turned away."""

import time


class Drain:
    """Counts requests in flight, and knows when the last one is done."""

    def __init__(self, timeout_s: float) -> None:
        self.in_flight = 0
        self._timeout_s = timeout_s
        self._deadline: float | None = None

    @property
    def draining(self) -> bool:
        return self._deadline is not None

    def begin(self) -> None:
        if self._deadline is None:
            self._deadline = time.monotonic() + self._timeout_s

    @property
    def finished(self) -> bool:
        """Whether the process may stop: it was asked to, and nobody is waiting (or not for much longer)."""
        return self._deadline is not None and (self.in_flight == 0 or time.monotonic() >= self._deadline)
