"""`GET /v1/status`: the whole platform on one page."""

from typing import Annotated

from fastapi import Depends, Request

from gateway.engine import Board, Doorkeeper
from gateway.routes.passages import DoorkeeperDep, authorization_of
from schemas.status import PlatformStatus
from services import context, daemon

routes = daemon.router()


def _board(request: Request) -> Board:
    board: Board = request.state.board
    return board


BoardDep = Annotated[Board, Depends(_board)]


@routes.get("/v1/status", tags=["gateway"])
async def status(request: Request, doorkeeper: DoorkeeperDep, board: BoardDep) -> PlatformStatus:
    """Every replica: health, rates, latencies, queues, caches, spool, log and datasets. Needs `admin`."""
    await _admit(doorkeeper, request)
    return await board.status()


async def _admit(doorkeeper: Doorkeeper, request: Request) -> None:
    principal, limiter = doorkeeper.identify(authorization_of(request.scope["headers"]))
    principal.require(("admin",))
    if limiter is not None:
        await limiter.admit_asking()
    if (current := context.current()) is not None:
        current.principal = principal.name
