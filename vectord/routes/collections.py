"""Collections: make, list, describe, delete."""

from schemas.vectors import BenchmarkRequest, BenchmarkResponse, Collection, CollectionList, CollectionSpec
from services import daemon
from vectord.routes.parts import EngineDep, LimitedDep, Name

routes = daemon.router()


@routes.put("/v1/collections/{name}")
async def put_collection(name: Name, body: CollectionSpec, engine: EngineDep) -> Collection:
    """Make a collection. The same again changes nothing; a different one is refused with 409."""
    return await engine.create(name, body)


@routes.get("/v1/collections")
async def list_collections(engine: EngineDep) -> CollectionList:
    """All collections, by name."""
    return await engine.all()


@routes.get("/v1/collections/{name}")
async def get_collection(name: Name, engine: EngineDep) -> Collection:
    """A collection as it stands."""
    return await engine.describe(name)


@routes.delete("/v1/collections/{name}")
async def delete_collection(name: Name, engine: EngineDep, limited: LimitedDep) -> Collection:
    """Delete a collection with everything in it; the answer is what it was."""
    return await engine.drop(name, limited)


@routes.post("/v1/collections/{name}/benchmark")
async def benchmark(
    name: Name, body: BenchmarkRequest, engine: EngineDep, limited: LimitedDep
) -> BenchmarkResponse:
    """How much of the truth is found, and how fast, with each setting."""
    return await engine.benchmark.run(name, body, limited)
