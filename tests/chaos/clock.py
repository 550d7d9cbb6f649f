"""A daemon whose clock is set anew upon a signal, as an operator or a time server may do at any moment.

`python -m tests.chaos.clock MODULE` runs a module in place of itself. SIGUSR1 sets its time of day an hour
ahead and SIGUSR2 an hour back. The monotonic clock stays as it is, since nobody can set that one either.
"""

import datetime as dt
import runpy
import signal
import sys
from functools import partial
from typing import Final

import time_machine

JUMP: Final = dt.timedelta(hours=1)
AHEAD: Final = signal.SIGUSR1
BACK: Final = signal.SIGUSR2


def program(module: str) -> tuple[str, ...]:
    """What runs a module with such a clock, as `started` takes it."""
    return ("-m", "tests.chaos.clock", module)


def run(module: str) -> None:
    clock = time_machine.travel(dt.timedelta(), tick=True).start()
    signal.signal(AHEAD, partial(_jump, clock, JUMP))
    signal.signal(BACK, partial(_jump, clock, -JUMP))
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _jump(clock: time_machine.Traveller, by: dt.timedelta, *_: object) -> None:
    clock.shift(by)


if __name__ == "__main__":
    run(sys.argv[1])
