"""A circuit breaker: a candidate that keeps failing is left alone for a while, then probed by one call."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from chatd.engine.config import Breaking

State = Literal["closed", "open", "half_open"]


@dataclass(slots=True)
class Breaker:
    """Opens after so many failures running; each time it fails its probe, it stays open twice as long."""

    rules: Breaking
    clock: Callable[[], float] = time.monotonic
    _failures: int = field(default=0, init=False)
    _opened: int = field(default=0, init=False)
    _open_until: float | None = field(default=None, init=False)
    _probing: bool = field(default=False, init=False)

    @property
    def state(self) -> State:
        if self._open_until is None:
            return "closed"
        return "half_open" if self.clock() >= self._open_until else "open"

    @property
    def wait_s(self) -> float:
        """Seconds until the next call may be made; 0 when one may be made now."""
        if self._open_until is None:
            return 0.0
        left_s = self._open_until - self.clock()
        if left_s > 0:
            return left_s
        return self.rules.open_s if self._probing else 0.0

    def enter(self) -> "Trial | None":
        """A call that is about to be made, or None when none may be."""
        if self.wait_s > 0:
            return None
        probe = self._open_until is not None
        self._probing = self._probing or probe
        return Trial(self, probe=probe)

    def succeeded(self) -> None:
        self._failures = self._opened = 0
        self._open_until = None
        self._probing = False

    def failed(self, *, probe: bool) -> None:
        """Late failures of calls that began before the circuit opened change nothing."""
        if self._open_until is not None and not probe:
            return
        self._failures += 1
        if probe or self._failures >= self.rules.failures_max:
            open_s = min(self.rules.open_max_s, self.rules.open_s * 2.0 ** min(self._opened, 30))
            self._opened += 1
            self._open_until = self.clock() + open_s
            self._probing = False

    def abandoned(self, *, probe: bool) -> None:
        if probe:
            self._probing = False


class Trial:
    """One call under a breaker. It counts once: as a success, a failure, or, left without either, as none."""

    __slots__ = ("_breaker", "_open", "_probe")

    def __init__(self, breaker: Breaker, *, probe: bool) -> None:
        self._breaker = breaker
        self._probe = probe
        self._open = True

    def succeeded(self) -> None:
        if self._ends():
            self._breaker.succeeded()

    def failed(self) -> None:
        if self._ends():
            self._breaker.failed(probe=self._probe)

    def close(self) -> None:
        if self._ends():
            self._breaker.abandoned(probe=self._probe)

    def _ends(self) -> bool:
        was, self._open = self._open, False
        return was
