"""What routes are given beside the body: the engine, the caller's roles, the collection's name."""

from typing import Annotated

from fastapi import Depends, Path, Request

from services import context
from vectord.engine import Engine, Exports, Limited, Limits, Reembeds, Snapshots


def _engine(request: Request) -> Engine:
    engine: Engine = request.state.engine
    return engine


def _limits(request: Request) -> Limits:
    limits: Limits = request.state.limits
    return limits


def _snapshots(request: Request) -> Snapshots:
    snapshots: Snapshots = request.state.snapshots
    return snapshots


def _exports(request: Request) -> Exports:
    exports: Exports = request.state.exports
    return exports


def _reembeds(request: Request) -> Reembeds:
    reembeds: Reembeds = request.state.reembeds
    return reembeds


async def _limited() -> Limited:
    current = context.current()
    return current.roles if current else None


EngineDep = Annotated[Engine, Depends(_engine)]
LimitsDep = Annotated[Limits, Depends(_limits)]
SnapshotsDep = Annotated[Snapshots, Depends(_snapshots)]
ExportsDep = Annotated[Exports, Depends(_exports)]
ReembedsDep = Annotated[Reembeds, Depends(_reembeds)]
LimitedDep = Annotated[Limited, Depends(_limited)]
Name = Annotated[str, Path(description="The collection's name: `[a-z0-9][a-z0-9_-]{0,63}`.")]
