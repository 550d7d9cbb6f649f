"""The work of `chatd`: dispatch, iterate, gate, record."""

from chatd.engine.calls import new_origin
from chatd.engine.dispatch import Clocks, Dispatcher
from chatd.engine.gate import Gate, Gated
from chatd.engine.iterate import Refiner
from chatd.engine.loop import Limits, Loop
from chatd.engine.metrics import Metrics
from chatd.engine.policy import read_policy, with_policy
from chatd.engine.spool import Sender, Spool

__all__ = [
    "Clocks",
    "Dispatcher",
    "Gate",
    "Gated",
    "Limits",
    "Loop",
    "Metrics",
    "Refiner",
    "Sender",
    "Spool",
    "new_origin",
    "read_policy",
    "with_policy",
]
