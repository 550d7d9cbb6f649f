"""What each stage does: its options checked, its pool and receipts, and what it made, in one form for all."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from distill.backends import Peers
from distill.engine import compare, contexts, drift, exports, inputs, replay, shards
from distill.engine.audit import AuditOptions, audit
from distill.engine.inputs import Input
from distill.engine.log import Log
from distill.engine.materialize import Limits, Materialized, materialize
from distill.engine.metrics import Metrics
from distill.engine.places import IMPORTS
from distill.engine.pool import Pool
from distill.engine.progress import Progress
from distill.engine.receipts import Receipts
from distill.engine.score import score_evidence
from distill.engine.sources import OWN, READERS
from schemas.comparison import Comparison
from schemas.distill import JobRequest
from schemas.evidence import Evidence, ProductFile, Quarantined, Scored
from schemas.proof import Audit, Material, ReceiptRef
from schemas.replay import Drift, ReplayOptions
from services import files
from services.errors import Conflict, InvalidRequest

FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "materialize": frozenset({"source"}),
    "score": frozenset(),
    "export": exports.OPTIONS,
    "audit": frozenset({"sample", "seed", "all"}),
    "replay": frozenset(ReplayOptions.model_fields),
    "compare": compare.OPTIONS,
    "index": contexts.OPTIONS,
    "drift": drift.OPTIONS,
}
"""The stages there are, and what each can be told."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stage made."""

    counts: dict[str, int]
    products: list[ProductFile] = field(default_factory=list)
    dataset_id: str | None = None
    replay_id: str | None = None
    receipt: ReceiptRef | None = None
    audit: Audit | None = None
    drift: Drift | None = None
    comparison: Comparison | None = None


Work = Callable[[Progress], Outcome]


@dataclass(frozen=True, slots=True)
class StageSettings:
    """How stages work: in how many processes, by which limits, by which rules, with whom.

    `peers` gives the daemons to ask, for the event loop that enters it; `embed_model` is the one that earlier
    work is found by.
    """

    processes: int
    inline_bytes_max: int
    limits: Limits
    rules: Path
    peers: Callable[[], Peers]
    replays: replay.ReplaySettings
    embed_model: str

    def pool(self, size_bytes: int) -> Pool:
        """Processes for work of this size; for little work, none: starting them would take longer."""
        return Pool(1 if size_bytes <= self.inline_bytes_max else self.processes)


class Stages:
    """What each stage does. Everything that it returns blocks, and is to be called in a thread."""

    def __init__(self, source: Log, data: Path, settings: StageSettings, metrics: Metrics) -> None:
        self._metrics = metrics
        self._log = source
        self._data = data
        self._settings = settings

    def work(self, request: JobRequest) -> Work:
        """What a request asks for, checked. Raises `InvalidRequest` for what is not there."""
        known = FIELDS.get(request.stage)
        if known is None:
            raise _not_there("stage", request.stage, FIELDS)
        for name in sorted(request.model_fields_set - known - {"stage"}):
            raise InvalidRequest(f"`{name}` does not belong to the stage `{request.stage}`", param=name)
        return self._alone(self._prepared(request))

    def _prepared(self, request: JobRequest) -> Work:
        """The stage with its options, checked before it begins."""
        settings = self._settings
        prepare: Mapping[str, Callable[[], Work]] = {
            "materialize": lambda: self._materialize(request),
            "score": lambda: self._score,
            "export": lambda: partial(self._export, exports.checked(request)),
            "audit": lambda: partial(self._audit, request),
            "index": lambda: partial(self._index, contexts.checked(request, settings.embed_model)),
            "replay": lambda: partial(
                self._replay, replay.checked(_replay_options(request), settings.replays)
            ),
            "compare": lambda: partial(self._compare, compare.planned(request)),
            "drift": lambda: partial(self._drift, drift.checked(request)),
        }
        return prepare[request.stage]()

    def _alone(self, work: Work) -> Work:
        """The work, while no other process of ours does any in the same folder."""

        def locked(progress: Progress) -> Outcome:
            folder = self._data / shards.FOLDER
            folder.mkdir(parents=True, exist_ok=True)
            try:
                held = files.lock(folder / ".lock")
            except BlockingIOError:
                raise Conflict(
                    "another distill runs a job on this data; wait until it is done", code="job_running"
                ) from None
            with held:
                return work(progress)

        return locked

    def _evidence_pool(self) -> Pool:
        manifest = shards.evidence_manifest(self._data / shards.FOLDER)
        size = sum(shard.evidence.bytes for shard in manifest.shards) if manifest else 0
        return self._settings.pool(size)

    def _materialize(self, request: JobRequest) -> Work:
        if request.source is not None and request.source not in READERS:
            raise _not_there("source", request.source, READERS)

        def work(progress: Progress) -> Outcome:
            started_at = datetime.now(UTC)
            receipts = Receipts(self._data)
            receipts.prepare()
            own = [Input(OWN, view.name, view.path, view.end) for view in self._log.snapshot()]
            sources = [*own, *inputs.imported(self._data / IMPORTS)]
            with self._settings.pool(sum(source.end for source in sources)) as pool:
                made = materialize(
                    sources, self._data, self._settings.limits, pool, progress, only=request.source
                )
            written = receipts.write(
                "materialize",
                materials=_materials(made),
                products=made.products,
                counts=made.counts,
                config={"source": request.source, **asdict(self._settings.limits)},
                schema_versions={one.schema_id: one.version for one in (Evidence, Quarantined)},
                started_at=started_at,
            )
            return Outcome(made.counts, made.products, receipt=written.ref)

        return work

    def _score(self, progress: Progress) -> Outcome:
        started_at = datetime.now(UTC)
        receipts = Receipts(self._data)
        receipts.prepare()
        with self._evidence_pool() as pool:
            made = score_evidence(self._data, self._settings.rules, pool, progress)
        written = receipts.write(
            "score",
            materials=self._evidence_read(),
            products=made.products,
            counts=made.counts,
            config={"rules_sha256": made.manifest.rules_sha256},
            schema_versions={Scored.schema_id: Scored.version},
            started_at=started_at,
            policy_version=made.manifest.policy_version,
        )
        return Outcome(made.counts, made.products, receipt=written.ref)

    def _evidence_read(self) -> list[Material]:
        evidence = shards.evidence_manifest(self._data / shards.FOLDER)
        assert evidence is not None
        return [_material(shard.evidence) for shard in evidence.shards]

    def _export(self, request: JobRequest, progress: Progress) -> Outcome:
        with self._evidence_pool() as pool:
            made = exports.export(self._data / shards.FOLDER, self._data, request, pool, progress)
        manifest = made.manifest
        return Outcome(manifest.counts, manifest.files, manifest.dataset_id, receipt=made.receipt)

    def _index(self, options: contexts.IndexOptions, progress: Progress) -> Outcome:
        Receipts(self._data).prepare()  # notes are signed
        with self._evidence_pool() as pool:
            return Outcome(contexts.index(self._data, self._settings.peers, options, pool, progress))

    def _compare(self, plan: compare.Plan, progress: Progress) -> Outcome:
        made = compare.compare(self._data, plan, progress)
        return Outcome(made.comparison.counts, made.files, receipt=made.receipt, comparison=made.comparison)

    def _drift(self, request: JobRequest, progress: Progress) -> Outcome:
        made = drift.drift(self._data, request, progress)
        return Outcome(made.counts, made.products, receipt=made.receipt, drift=made.drift)

    def _replay(self, options: ReplayOptions, progress: Progress) -> Outcome:
        place = replay.Place(self._data, self._log, self._metrics)
        with self._evidence_pool() as pool:
            made = replay.replay(place, options, self._settings.replays, pool, progress)
        manifest = made.manifest
        return Outcome(manifest.counts, manifest.files, receipt=made.receipt, replay_id=manifest.replay_id)

    def _audit(self, request: JobRequest, progress: Progress) -> Outcome:
        options = AuditOptions(sample=None if request.all else request.sample, seed=request.seed)
        return Outcome({}, audit=audit(self._data, options, progress))


def _replay_options(request: JobRequest) -> ReplayOptions:
    """Only what was asked for: other stages have other defaults for the fields that they share."""
    return ReplayOptions.model_validate(request.model_dump(include=request.model_fields_set - {"stage"}))


def _materials(made: Materialized) -> list[Material]:
    """The parts of the inputs that were read."""
    return [
        Material(
            uri=shard.path,
            sha256=shard.input_sha256,
            bytes=shard.end - shard.start,
            lines=shard.counts["in"],
            first_offset=shard.start,
            last_offset=shard.end,
        )
        for shard in made.manifest.shards
    ]


def _material(product: ProductFile) -> Material:
    return Material(
        uri=product.name,
        sha256=product.sha256,
        bytes=product.bytes,
        lines=product.lines,
        last_offset=product.bytes,
    )


def _not_there(param: str, value: Any, known: Mapping[str, object]) -> InvalidRequest:
    there = ", ".join(f"`{name}`" for name in known)
    return InvalidRequest(
        f"`{param}` {value!r} is not there; there is {there}", code=f"unknown_{param}", param=param
    )
