"""Replay: recorded tasks are done again by another arm, and what became of each is recorded."""

from distill.engine.replay.folder import file_of, page
from distill.engine.replay.options import ReplaySettings, checked
from distill.engine.replay.run import Place, Replayed, replay

__all__ = ["Place", "ReplaySettings", "Replayed", "checked", "file_of", "page", "replay"]
