"""The work of `chatd`: dispatch, iterate, gate, record."""

from chatd.engine.answered import Answered, Opened
from chatd.engine.budget import Ledger
from chatd.engine.caller import CALLER_HEADERS, Caller, caller_of
from chatd.engine.calls import new_origin
from chatd.engine.dispatch import Dispatcher
from chatd.engine.explain import explain
from chatd.engine.gate import Gate, Gated
from chatd.engine.iterate import Refiner
from chatd.engine.loop import Limits, Loop
from chatd.engine.metrics import Metrics
from chatd.engine.policy import read_policy, with_policy
from chatd.engine.spool import Sender, Spool

__all__ = [
    "CALLER_HEADERS",
    "Answered",
    "Caller",
    "Dispatcher",
    "Gate",
    "Gated",
    "Ledger",
    "Limits",
    "Loop",
    "Metrics",
    "Opened",
    "Refiner",
    "Sender",
    "Spool",
    "caller_of",
    "explain",
    "new_origin",
    "read_policy",
    "with_policy",
]
