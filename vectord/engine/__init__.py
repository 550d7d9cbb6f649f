"""The work of vectord. Knows nothing of HTTP."""

from vectord.engine.collections import Collections
from vectord.engine.core import Engine
from vectord.engine.disk import Disk
from vectord.engine.embedding import Embedder
from vectord.engine.gate import Limited
from vectord.engine.limits import Limits
from vectord.engine.metrics import Metrics
from vectord.engine.prompt import PromptQuestion
from vectord.engine.recall import Recall
from vectord.engine.runner import Runner

__all__ = [
    "Collections",
    "Disk",
    "Embedder",
    "Engine",
    "Limited",
    "Limits",
    "Metrics",
    "PromptQuestion",
    "Recall",
    "Runner",
]
