"""The work of `distill`: the log, the stages, and what is asked of them. Knows nothing of HTTP."""

from distill.engine.evidence import INLINE_BYTES_MAX, Engine, Received
from distill.engine.index import Outcome
from distill.engine.jobs import Jobs
from distill.engine.log import Log, LogLimits
from distill.engine.materialize import Limits
from distill.engine.metrics import Metrics
from distill.engine.rules import SHIPPED
from distill.engine.stages import Stages, StageSettings

__all__ = [
    "INLINE_BYTES_MAX",
    "SHIPPED",
    "Engine",
    "Jobs",
    "Limits",
    "Log",
    "LogLimits",
    "Metrics",
    "Outcome",
    "Received",
    "StageSettings",
    "Stages",
]
