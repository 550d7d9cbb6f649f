"""The routes: parse, ask the engine, answer."""

from fastapi import APIRouter

from vectord.routes import collections, points, roles, search
from vectord.routes.search import SearchDoor

routes = APIRouter()
for topic in (collections, points, search, roles):
    routes.include_router(topic.routes)

__all__ = ["SearchDoor", "routes"]
