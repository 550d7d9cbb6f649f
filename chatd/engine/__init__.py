"""The work of `chatd`: dispatch, iterate, record."""

from chatd.engine.calls import new_origin
from chatd.engine.dispatch import Clocks, Dispatcher
from chatd.engine.iterate import Limits, Refiner
from chatd.engine.metrics import Metrics
from chatd.engine.spool import Sender, Spool

__all__ = ["Clocks", "Dispatcher", "Limits", "Metrics", "Refiner", "Sender", "Spool", "new_origin"]
