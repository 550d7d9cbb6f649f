"""Comparisons of replays: the report for people, and the same for programs."""

from fastapi.responses import FileResponse

from distill.routes.parts import EngineDep, file_answer
from services import daemon

routes = daemon.router()


@routes.get("/v1/distill/comparisons/{comparison_id}/files/{name}", response_class=FileResponse)
async def get_comparison_file(comparison_id: str, name: str, engine: EngineDep) -> FileResponse:
    """A file of a comparison, streamed: `report.html` or `comparison.json`."""
    return file_answer(await engine.comparison_file(comparison_id, name))
