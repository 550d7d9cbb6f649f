"""The work of `modeld`: models in and out of memory, embedding, generation. Knows nothing of HTTP."""

from modeld.engine.core import Embedded, Engine, Limits, Prompt
from modeld.engine.generation import Generation
from modeld.engine.metrics import Metrics
from modeld.engine.residency import Resident

__all__ = ["Embedded", "Engine", "Generation", "Limits", "Metrics", "Prompt", "Resident"]
