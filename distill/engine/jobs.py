"""Jobs: one stage at a time, in a thread, with a state that can be asked for."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from distill.engine.export import export
from distill.engine.log import Log
from distill.engine.materialize import materialize
from distill.engine.metrics import Metrics
from distill.engine.plans import PLANS
from distill.engine.progress import Progress, Stopped
from distill.engine.score import score_evidence
from schemas.distill import Job, JobRequest, JobState
from schemas.errors import ErrorBody
from schemas.evidence import ProductFile
from services import ids
from services.context import current
from services.errors import Conflict, InvalidRequest, NotFound, PlatformError, Unavailable
from services.tasks import TaskSet

log = structlog.get_logger(__name__)

SOURCES: Final = ("stillhouse",)
FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "materialize": frozenset({"source"}),
    "score": frozenset(),
    "export": frozenset({"kind", "target"}),
}
"""The stages there are, and what each can be told."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stage made."""

    counts: dict[str, int]
    products: list[ProductFile]
    dataset_id: str | None = None


Work = Callable[[Progress], Outcome]


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
        done = self.outcome or Outcome({}, [])
        return Job(
            job_id=self.job_id,
            stage=self.stage,
            state=self.state,
            progress=self.progress.fraction,
            counts=done.counts,
            products=done.products,
            dataset_id=done.dataset_id,
            error=self.error,
        )


class Jobs:
    """Starts stages and remembers how they ended. The folder has one writer: a second job is refused."""

    def __init__(self, source: Log, folder: Path, tasks: TaskSet, metrics: Metrics, *, kept_max: int) -> None:
        self._log = source
        self._folder = folder
        self._tasks = tasks
        self._metrics = metrics
        self._kept_max = kept_max
        self._jobs: OrderedDict[str, _Running] = OrderedDict()
        self._current: tuple[_Running, asyncio.Task[None]] | None = None

    def start(self, request: JobRequest) -> str:
        """Begin a stage and return the job's id.

        Raises `InvalidRequest` for what cannot be run, and `Conflict` while another job is running.
        """
        work = self._work(request)
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
        """Stop the job that is running; what it had written is removed."""
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
        self._metrics.quarantined.labels(job.stage).inc(job.outcome.counts.get("quarantined", 0))
        log.info("job done", job_id=job.job_id, stage=job.stage, **job.outcome.counts)

    def _fail(self, job: _Running, error: PlatformError) -> None:
        job.state = "failed"
        job.error = error.envelope(job.request_id).error
        log.warning("job failed", job_id=job.job_id, stage=job.stage, code=error.code)

    # --- stages -------------------------------------------------------------------------------

    def _work(self, request: JobRequest) -> Work:
        known = FIELDS.get(request.stage)
        if known is None:
            raise _not_built("stage", request.stage, FIELDS)
        for name in sorted(request.model_fields_set - known - {"stage"}):
            raise InvalidRequest(f"`{name}` does not belong to the stage `{request.stage}`", param=name)
        if request.stage == "materialize":
            return self._materialize(request)
        return self._score if request.stage == "score" else self._export(request)

    def _materialize(self, request: JobRequest) -> Work:
        if request.source is not None and request.source not in SOURCES:
            raise _not_built("source", request.source, SOURCES)
        snapshot = self._log.snapshot()

        def work(progress: Progress) -> Outcome:
            made = materialize(self._log, snapshot, self._folder, progress)
            return Outcome(made.counts, made.products)

        return work

    def _score(self, progress: Progress) -> Outcome:
        made = score_evidence(self._folder, progress)
        return Outcome(made.counts, made.products)

    def _export(self, request: JobRequest) -> Work:
        kind = request.kind
        if kind is None or kind not in PLANS:
            raise _not_built("kind", kind, PLANS)
        default = next(iter(PLANS[kind])) if len(PLANS[kind]) == 1 else None
        target = request.target or default
        if target is None or target not in PLANS[kind]:
            raise _not_built("target", target, PLANS[kind])

        def work(progress: Progress) -> Outcome:
            manifest = export(self._folder, kind, target, progress)
            return Outcome(manifest.counts, manifest.files, manifest.dataset_id)

        return work


def _not_built(
    param: str, value: str | None, known: Mapping[str, object] | tuple[str, ...]
) -> InvalidRequest:
    there = ", ".join(f"`{name}`" for name in known)
    what = "is missing" if value is None else f"{value!r} is not there"
    return InvalidRequest(f"`{param}` {what}; there is {there}", code=f"unknown_{param}", param=param)
