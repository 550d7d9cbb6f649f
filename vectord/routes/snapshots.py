"""Snapshots: make, list, fetch, bring, delete, restore."""

import asyncio
from typing import Annotated

from fastapi import Path, Request
from fastapi.responses import FileResponse

from schemas.vectors import (
    Collection,
    RestoreRequest,
    Snapshot,
    SnapshotList,
    SnapshotName,
    SnapshotRequest,
)
from services import daemon
from vectord.routes.parts import LimitedDep, Name, SnapshotsDep

routes = daemon.router()

Key = Annotated[SnapshotName, Path(description="The snapshot's name.")]


@routes.post("/v1/collections/{name}/snapshots")
async def make_snapshot(
    name: Name,
    snapshots: SnapshotsDep,
    limited: LimitedDep,
    _: SnapshotRequest | None = None,  # a body may be left out; one that asks for something is refused
) -> Snapshot:
    """Write the collection, as it is now, to one file. Searches go on, writes wait."""
    return await snapshots.create(name, limited)


@routes.get("/v1/collections/{name}/snapshots")
async def list_snapshots(name: Name, snapshots: SnapshotsDep, limited: LimitedDep) -> SnapshotList:
    """The collection's snapshots, oldest first; they outlive it."""
    return await snapshots.all(name, limited)


@routes.get("/v1/collections/{name}/snapshots/{snapshot}", response_class=FileResponse)
async def fetch_snapshot(
    name: Name, snapshot: Key, snapshots: SnapshotsDep, limited: LimitedDep
) -> FileResponse:
    """The file: a zip."""
    path = await snapshots.file(name, snapshot, limited)
    return FileResponse(path, media_type="application/zip", filename=f"{name}-{path.name}")


@routes.put("/v1/collections/{name}/snapshots/{snapshot}")
async def bring_snapshot(
    name: Name, snapshot: Key, request: Request, snapshots: SnapshotsDep, limited: LimitedDep
) -> Snapshot:
    """Bring a file made elsewhere, as the body; it is kept once every member is what its manifest says."""
    with snapshots.receiving() as file:
        async for chunk in request.stream():
            await asyncio.to_thread(file.write, chunk)
        return await snapshots.keep(name, snapshot, file, limited)


@routes.delete("/v1/collections/{name}/snapshots/{snapshot}")
async def delete_snapshot(
    name: Name, snapshot: Key, snapshots: SnapshotsDep, limited: LimitedDep
) -> Snapshot:
    """Delete a snapshot; the answer is what it was."""
    return await snapshots.delete(name, snapshot, limited)


@routes.post("/v1/collections/{name}/restore")
async def restore(
    name: Name, body: RestoreRequest, snapshots: SnapshotsDep, limited: LimitedDep
) -> Collection:
    """Make this collection, which must not exist, of a snapshot."""
    return await snapshots.restore(name, body, limited)
