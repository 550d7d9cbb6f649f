"""Verdicts on model output before it reaches production."""
