"""The work of `embedd`. Knows nothing of HTTP."""

from embedd.engine.cache import Entry, FragmentCache, VectorCache
from embedd.engine.core import Embedded, Engine, ItemsFailed, Order
from embedd.engine.lanes import PROBES
from embedd.engine.metrics import Metrics
from embedd.engine.pool import Limits, Pool
from embedd.engine.spans import Spans
from embedd.engine.warm import WarmFile

__all__ = [
    "PROBES",
    "Embedded",
    "Engine",
    "Entry",
    "FragmentCache",
    "ItemsFailed",
    "Limits",
    "Metrics",
    "Order",
    "Pool",
    "Spans",
    "VectorCache",
    "WarmFile",
]
