"""Two replays of the same tasks compared: what is better, what is worse, and what nobody can tell."""

from distill.engine.compare.run import OPTIONS, Compared, Plan, compare, file_of, planned

__all__ = ["OPTIONS", "Compared", "Plan", "compare", "file_of", "planned"]
