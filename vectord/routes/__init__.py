"""The routes: parse, ask the engine, answer."""

from fastapi import APIRouter

from vectord.routes import bulk, collections, migrate, points, reembed, roles, search, snapshots
from vectord.routes.search import SearchDoor

routes = APIRouter()
for topic in (collections, points, search, bulk, snapshots, reembed, roles, migrate):
    routes.include_router(topic.routes)

__all__ = ["SearchDoor", "routes"]
