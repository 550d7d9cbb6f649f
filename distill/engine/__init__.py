"""The work of `distill`: the log, the stages, and what is asked of them. Knows nothing of HTTP."""

from distill.engine.evidence import Engine
from distill.engine.jobs import Jobs
from distill.engine.log import Log, LogLimits
from distill.engine.metrics import Metrics

__all__ = ["Engine", "Jobs", "Log", "LogLimits", "Metrics"]
