"""Contexts: earlier work that passed, indexed to be found again, and never shown to its own group."""

from distill.engine.contexts.groups import Groups
from distill.engine.contexts.indexing import OPTIONS, IndexOptions, checked, index
from distill.engine.contexts.retrieval import COLLECTION, Contexts, Passage

__all__ = [
    "COLLECTION",
    "OPTIONS",
    "Contexts",
    "Groups",
    "IndexOptions",
    "Passage",
    "checked",
    "index",
]
