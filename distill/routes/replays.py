"""Finished replays and their files."""

from fastapi.responses import FileResponse

from distill.routes.parts import EngineDep, Limit, NameCursor, file_answer
from schemas.replay import ReplayPage
from services import daemon

routes = daemon.router()


@routes.get("/v1/distill/replays")
async def list_replays(engine: EngineDep, limit: Limit, cursor: NameCursor = None) -> ReplayPage:
    """The finished replays, by their manifests."""
    return await engine.replays(limit, cursor)


@routes.get("/v1/distill/replays/{replay_id}/files/{name}", response_class=FileResponse)
async def get_replay_file(replay_id: str, name: str, engine: EngineDep) -> FileResponse:
    """A file of a replay, streamed: `tasks.jsonl`, `quarantine.jsonl` or `manifest.json`."""
    return file_answer(await engine.replay_file(replay_id, name))
