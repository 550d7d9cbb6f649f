"""The routes: parse, ask the engine, answer."""

from fastapi import APIRouter

from vectord.routes import bulk, collections, points, roles, search, snapshots
from vectord.routes.search import SearchDoor

routes = APIRouter()
for topic in (collections, points, search, bulk, snapshots, roles):
    routes.include_router(topic.routes)

__all__ = ["SearchDoor", "routes"]
