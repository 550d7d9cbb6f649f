"""The work of vectord. Knows nothing of HTTP."""

from vectord.engine.batches import search_batch
from vectord.engine.canaries import Canaries
from vectord.engine.collections import Collections
from vectord.engine.core import Engine
from vectord.engine.disk import Disk
from vectord.engine.embedding import Embedder
from vectord.engine.facets import facets
from vectord.engine.gate import Limited
from vectord.engine.limits import Limits
from vectord.engine.metrics import Metrics
from vectord.engine.prompt import PromptQuestion
from vectord.engine.recall import Recall
from vectord.engine.reembed import Reembeds
from vectord.engine.runner import Runner
from vectord.engine.snapshots import Snapshots
from vectord.engine.transfer import Exports

__all__ = [
    "Canaries",
    "Collections",
    "Disk",
    "Embedder",
    "Engine",
    "Exports",
    "Limited",
    "Limits",
    "Metrics",
    "PromptQuestion",
    "Recall",
    "Reembeds",
    "Runner",
    "Snapshots",
    "facets",
    "search_batch",
]
