"""What routes are given beside the body: the engine, the caller's roles, the collection's name."""

from typing import Annotated

from fastapi import Depends, Path, Request

from services import context
from vectord.engine import Engine, Limited


def _engine(request: Request) -> Engine:
    engine: Engine = request.state.engine
    return engine


async def _limited() -> Limited:
    current = context.current()
    return current.roles if current else None


EngineDep = Annotated[Engine, Depends(_engine)]
LimitedDep = Annotated[Limited, Depends(_limited)]
Name = Annotated[str, Path(description="The collection's name: `[a-z0-9][a-z0-9_-]{0,63}`.")]
