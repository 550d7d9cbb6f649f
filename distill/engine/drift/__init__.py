"""Drift: what changed between two windows of evidence, in what went in and in what came out."""

from distill.engine.drift.run import FOLDER, OPTIONS, Drifted, drift, file_of
from distill.engine.drift.windows import checked

__all__ = ["FOLDER", "OPTIONS", "Drifted", "checked", "drift", "file_of"]
