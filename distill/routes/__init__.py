"""The routes: parse, ask the engine, answer."""

from fastapi import APIRouter

from distill.routes import comparisons, datasets, drifts, evidence, jobs, replays, review, runs
from distill.routes.runs import RunsDoor

routes = APIRouter()
for topic in (runs, jobs, evidence, review, replays, datasets, comparisons, drifts):
    routes.include_router(topic.routes)

__all__ = ["RunsDoor", "routes"]
