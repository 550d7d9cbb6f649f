"""Jobs: one stage at a time, off the event loop, with a state that can be asked for."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

import structlog

from distill.engine.metrics import Metrics
from distill.engine.progress import Progress, Stopped
from distill.engine.stages import Outcome, Stages, Work
from schemas.distill import Job, JobRequest, JobState
from schemas.errors import ErrorBody
from services import ids
from services.context import current
from services.errors import Conflict, NotFound, PlatformError, Unavailable
from services.tasks import TaskSet

log = structlog.get_logger(__name__)


class AuditFailed(PlatformError):
    """Something is not as it was signed."""

    code = "audit_failed"


@dataclass(slots=True)
class _Running:
    job_id: str
    stage: str
    request_id: str | None
    state: JobState = "queued"
    progress: Progress = field(default_factory=Progress)
    outcome: Outcome | None = None
    error: ErrorBody | None = None

    def view(self) -> Job:
        done = self.outcome or Outcome({})
        return Job(
            job_id=self.job_id,
            stage=self.stage,
            state=self.state,
            progress=self.progress.fraction,
            counts=done.counts,
            products=done.products,
            dataset_id=done.dataset_id,
            replay_id=done.replay_id,
            receipt=done.receipt,
            audit=done.audit,
            drift=done.drift,
            comparison=done.comparison,
            error=self.error,
        )


class Jobs:
    """Starts stages and remembers how they ended. One runs at a time: a second job is refused."""

    def __init__(self, stages: Stages, tasks: TaskSet, metrics: Metrics, *, kept_max: int) -> None:
        self._stages = stages
        self._tasks = tasks
        self._metrics = metrics
        self._kept_max = kept_max
        self._jobs: OrderedDict[str, _Running] = OrderedDict()
        self._current: tuple[_Running, asyncio.Task[None]] | None = None
        metrics.job_running.set_function(lambda: self._current is not None)

    def start(self, request: JobRequest) -> str:
        """Begin a stage and return the job's id.

        Raises `InvalidRequest` for what cannot be run, and `Conflict` while another job is running.
        """
        work = self._stages.work(request)
        if self._current is not None:
            raise Conflict(
                f"job {self._current[0].job_id} ({self._current[0].stage}) is running; one writes at a time,"
                " wait until it is done",
                code="job_running",
            )
        asking = current()
        job = _Running(ids.uuid7(), request.stage, asking.request_id if asking else None)
        self._jobs[job.job_id] = job
        while len(self._jobs) > self._kept_max:
            self._jobs.popitem(last=False)
        self._current = (job, self._tasks.start(self._run(job, work), name=f"job {request.stage}"))
        return job.job_id

    def get(self, job_id: str) -> Job:
        job = self._jobs.get(job_id)
        if job is None:
            raise NotFound(
                f"there is no job {job_id!r}; the last {self._kept_max} since the start are remembered",
                code="job_not_found",
            )
        return job.view()

    async def close(self) -> None:
        """Stop the job that is running; what it has finished is taken up by the next."""
        if self._current is not None:
            job, task = self._current
            job.progress.stop()
            await asyncio.wait([task])

    async def _run(self, job: _Running, work: Work) -> None:
        job.state = "running"
        log.info("job started", job_id=job.job_id, stage=job.stage)
        try:
            job.outcome = await asyncio.to_thread(work, job.progress)
        except Stopped:
            self._fail(job, Unavailable("distill was stopped during the job; start it again", code="stopped"))
        except OSError as error:
            self._fail(job, Unavailable(f"the disk failed the stage: {error.strerror}", code="disk"))
        except PlatformError as error:
            self._fail(job, error)
        except Exception:  # the boundary of a job: whoever asks for it must learn of a defect
            log.exception("job crashed", job_id=job.job_id, stage=job.stage)
            self._fail(job, PlatformError("the stage failed unexpectedly; the log of distill has the trace"))
        else:
            self._finish(job)
        finally:
            self._current = None
            self._metrics.jobs.labels(job.stage, job.state).inc()

    def _finish(self, job: _Running) -> None:
        assert job.outcome is not None
        job.progress.fraction = 1.0
        job.state = "done"
        if job.outcome.audit is not None and job.outcome.audit.outcome == "broken":
            findings = job.outcome.audit.findings
            self._fail(job, AuditFailed(f"{len(findings)} findings; the first: {findings[0].message}"))
            return
        comparison = job.outcome.comparison
        if comparison is not None and comparison.gate is not None and not comparison.gate.passed:
            gate = comparison.gate
            self._fail(job, Conflict(f"the gate {gate.gate!r} failed: {gate.reason}", code="gate_failed"))
            return
        if job.outcome.drift is not None:
            self._metrics.tell_drift(job.outcome.drift)
        self._metrics.quarantined.labels(job.stage).inc(job.outcome.counts.get("quarantined", 0))
        log.info("job done", job_id=job.job_id, stage=job.stage, **job.outcome.counts)

    def _fail(self, job: _Running, error: PlatformError) -> None:
        job.state = "failed"
        job.error = error.envelope(job.request_id).error
        log.warning("job failed", job_id=job.job_id, stage=job.stage, code=error.code)
