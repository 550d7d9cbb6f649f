"""The work of vectord. Knows nothing of HTTP."""

from vectord.engine.batches import search_batch
from vectord.engine.canaries import Canaries
from vectord.engine.changes import Changes
from vectord.engine.collections import Collections
from vectord.engine.core import Engine
from vectord.engine.disk import Disk
from vectord.engine.embedding import Embedder
from vectord.engine.facets import facets
from vectord.engine.flushes import Flushes
from vectord.engine.gate import Limited
from vectord.engine.limits import Limits
from vectord.engine.metrics import Metrics
from vectord.engine.moves import Moves
from vectord.engine.prompt import PromptQuestion
from vectord.engine.recall import Recall
from vectord.engine.reembed import Reembeds
from vectord.engine.runner import Runner
from vectord.engine.shards import Shards
from vectord.engine.snapshots import Snapshots
from vectord.engine.transfer import Exports
from vectord.engine.upkeep import Upkeep

__all__ = [
    "Canaries",
    "Changes",
    "Collections",
    "Disk",
    "Embedder",
    "Engine",
    "Exports",
    "Flushes",
    "Limited",
    "Limits",
    "Metrics",
    "Moves",
    "PromptQuestion",
    "Recall",
    "Reembeds",
    "Runner",
    "Shards",
    "Snapshots",
    "Upkeep",
    "facets",
    "search_batch",
]
