"""Exported datasets and their files."""

from fastapi.responses import FileResponse

from distill.routes.parts import EngineDep, Limit, NameCursor, file_answer
from schemas.distill import DatasetPage
from services import daemon

routes = daemon.router()


@routes.get("/v1/distill/datasets")
async def list_datasets(engine: EngineDep, limit: Limit, cursor: NameCursor = None) -> DatasetPage:
    """The exported datasets, by their manifests."""
    return await engine.datasets(limit, cursor)


@routes.get("/v1/distill/datasets/{dataset_id}/files/{name}", response_class=FileResponse)
async def get_file(dataset_id: str, name: str, engine: EngineDep) -> FileResponse:
    """A file of a dataset, streamed: one that the manifest names, or `manifest.json`."""
    return file_answer(await engine.dataset_file(dataset_id, name))
