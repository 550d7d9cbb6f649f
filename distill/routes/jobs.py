"""Stages: started, and asked after."""

from distill.routes.parts import EngineDep
from schemas.distill import Job, JobAccepted, JobRequest
from services import daemon

routes = daemon.router()


@routes.post("/v1/distill/jobs", status_code=202)
async def start_job(body: JobRequest, engine: EngineDep) -> JobAccepted:
    """Start a stage. One runs at a time; a second is refused (409). docs/distill.md tells what each is."""
    return JobAccepted(job_id=engine.jobs.start(body))


@routes.get("/v1/distill/jobs/{job_id}")
async def get_job(job_id: str, engine: EngineDep) -> Job:
    """How far a job is, and what it made."""
    return engine.jobs.get(job_id)
