"""What drift found, as files: the record, and the profile that can be a baseline."""

from fastapi.responses import FileResponse

from distill.routes.parts import EngineDep, file_answer
from services import daemon

routes = daemon.router()


@routes.get("/v1/distill/drifts/{name}", response_class=FileResponse)
async def get_drift_file(name: str, engine: EngineDep) -> FileResponse:
    """A file that a job of the stage `drift` names: `<id>.json`, or the profile of its current window."""
    return file_answer(await engine.drift_file(name))
