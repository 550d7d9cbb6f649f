"""One run of the export: two passes over the shards, the sharing-out between them, and the folder published.

The work is done in a folder of its own beside the datasets. What a killed run finished there is taken up by
the next run of the same export; the dataset gets its name in one step at the end, with its receipt in it.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from distill.engine.exports import croissant, pairs
from distill.engine.exports.dealing import (
    Dealt,
    DealTask,
    JoinTask,
    deal_shard,
    join_parts,
    parts_of,
)
from distill.engine.exports.grouping import decide, shares
from distill.engine.exports.report import report
from distill.engine.exports.rowing import Done, ShardTask, Tally, row_shard, survey_shard
from distill.engine.exports.splits import HOLDOUT, SPLITS, TRAIN, VALIDATION, HoldoutIds
from distill.engine.exports.trainers import TARGETS
from distill.engine.library import Library
from distill.engine.places import DATASETS, MANIFEST, RECEIPT
from distill.engine.pool import Pool
from distill.engine.progress import Progress, Stopped
from distill.engine.receipts import Receipts, product_of
from schemas.canonical import canonical_bytes, content_id
from schemas.distill import JobRequest
from schemas.evidence import DatasetManifest, ProductFile, Provenance, Quarantined
from schemas.proof import Material, ReceiptRef
from services import files
from services.errors import Conflict, InvalidRequest

Result = TypeVar("Result")

CARD: Final = "croissant.json"
REPORT: Final = "report.html"
DATASET_INFO: Final = "dataset_info.json"
QUARANTINE: Final = "quarantine.jsonl"
HOLDOUT_IDS: Final = "distill/holdout"
WORKING: Final = ".export-"
LAYOUT: Final = "2"
"""Part of a working folder's name: what another version of this code left is not taken up."""

OPTIONS: Final = frozenset(
    {"kind", "target", "include_partial", "shares", "salt", "holdout_days", "margin_min", "pii"}
)
"""The fields of a job that belong to an export."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A dataset that is published, and the receipt of the run that made it."""

    manifest: DatasetManifest
    receipt: ReceiptRef


def checked(request: JobRequest) -> JobRequest:
    """The request with a target, the usual one where it names none. Raises `InvalidRequest`."""
    kind = request.kind
    if kind is None or kind not in TARGETS:
        raise _not_there("kind", kind, TARGETS)
    targets = TARGETS[kind]
    target = request.target or next(iter(targets))
    if target not in targets:
        raise _not_there("target", target, targets)
    return request.model_copy(update={"target": target})


def _not_there(param: str, value: str | None, known: Iterable[str]) -> InvalidRequest:
    there = ", ".join(f"`{name}`" for name in known)
    what = "is missing" if value is None else f"{value!r} is not there"
    return InvalidRequest(f"`{param}` {what}; there is {there}", code=f"unknown_{param}", param=param)


def export(library: Path, data: Path, options: JobRequest, pool: Pool, progress: Progress) -> Exported:
    """Write a dataset folder below `data` from the evidence in `library`. `options` have been `checked`.

    `counts["in"]` is every piece of evidence, and the sum of the other counts. Raises `Conflict` when an
    earlier stage is missing or stale, and when nothing fits: an empty dataset is a failure, not a product.
    """
    started_at = datetime.now(UTC)
    key = Receipts(data).prepare()
    source = Library(library)
    source.require()
    hashes = source.hashes()
    folder = data / DATASETS
    folder.mkdir(parents=True, exist_ok=True)
    work = folder / f"{WORKING}{content_id([LAYOUT, *hashes, _options(options)])[:16]}"
    _remove_leftovers(folder, but=work)
    work.mkdir(exist_ok=True)
    try:
        run = _Run(_Places(library, data, work, content_id(hashes)), options, pool, progress)
        materials = run.make()
        manifest = run.manifest(hashes, source.versions(), {"key_id": key.id, "public_key": key.pem})
        exported = run.publish(manifest, materials, started_at)
    except Stopped:
        raise  # the next run goes on from here
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work, ignore_errors=True)
    return exported


def _remove_leftovers(folder: Path, *, but: Path) -> None:
    """Remove what exports that were killed left half-done, but for the one that goes on."""
    for leftover in folder.glob(f"{WORKING}*"):
        if leftover != but:
            shutil.rmtree(leftover, ignore_errors=True)


def _options(options: JobRequest) -> dict[str, Any]:
    return options.model_dump(mode="json", include=set(OPTIONS))


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the evidence lies, below which folder the datasets do, and where the work is done."""

    library: Path
    data: Path
    work: Path
    stamp: str


class _Run:
    """The steps of one export, in their order."""

    def __init__(self, places: _Places, options: JobRequest, pool: Pool, progress: Progress) -> None:
        assert options.kind is not None
        assert options.target is not None
        library, work = places.library, places.work
        self._data = places.data
        self._work = work
        self._made = work / "made"
        self._options = options
        self._kind, self._target = options.kind, options.target
        self._pool = pool
        self._progress = progress
        self._tasks = [
            ShardTask(places.data, library, places.stamp, shard, number, work, options)
            for number, shard in enumerate(Library(library).shards())
        ]
        self._holdout = HoldoutIds(places.data / HOLDOUT_IDS, options.salt)
        self._tally = Tally()
        self._groups = 0
        self._splits = dict.fromkeys(SPLITS, 0)
        self._files: list[ProductFile] = []

    def make(self) -> list[Material]:
        """Write the files into the working folder; return what was read."""
        shutil.rmtree(self._made, ignore_errors=True)
        self._made.mkdir()
        first = 0.0
        if self._kind == "preference":
            self._pair()
            first = 0.3
        done = list(self._each(row_shard, self._tasks, first, 0.75))
        for one in done:
            self._tally.add(one.tally)
        if not self._tally.rows:
            raise Conflict(
                f"nothing fits a {self._kind} dataset: {_summary(self._tally)}", code="nothing_to_export"
            )
        self._share_out()
        return [
            material
            for task, one in zip(self._tasks, done, strict=True)
            for material in self._read(task, one)
        ]

    def _each(
        self, work: Callable[[Any], Result], tasks: Sequence[Any], start: float, end: float
    ) -> Iterator[Result]:
        for number, result in enumerate(self._pool.map(work, tasks), start=1):
            yield result
            self._progress.reach(number, len(tasks), start=start, end=end)

    def _pair(self) -> None:
        """Look at all evidence and decide who is in a pair with whom."""
        for _ in self._each(survey_shard, self._tasks, 0.0, 0.3):
            pass
        surveys = [task.path("survey.npy") for task in self._tasks]
        pairs.plan(pairs.worth_planning(surveys)).save(self._work / "plan.npy")

    def _share_out(self) -> None:
        count = len(self._tasks)
        decided = decide(self._work, count, self._options, self._holdout.prefixes(), self._pool)
        self._progress.reach(0, 1, start=0.85)
        self._groups = decided.groups
        for split, name in ((TRAIN, "train"), (VALIDATION, "validation"), (HOLDOUT, "holdout")):
            self._splits[name] = int(np.count_nonzero(decided.split == split))
        tasks = [
            DealTask(self._work, share, self._options.salt) for share in shares(self._work, count, decided)
        ]
        held: list[str] = []
        for dealt in self._each(deal_shard, tasks, 0.85, 0.95):
            self._take(dealt)
            held += dealt.held_ids
        wanted = [
            (name, parts_of(self._work, count, name))
            for split in SPLITS
            for name in (f"{split}.jsonl", f"{split}.provenance.jsonl")
        ]
        wanted.append((QUARANTINE, parts_of(self._work, count, "left", "left2")))
        joins = [JoinTask(parts, self._made / name) for name, parts in wanted]
        self._files = list(self._each(join_parts, joins, 0.95, 1.0))
        self._conserve()
        self._holdout.add(held)

    def _take(self, dealt: Dealt) -> None:
        self._tally.reasons.update(dealt.reasons)
        self._tally.rows -= dealt.reasons.total()

    def _conserve(self) -> None:
        """Every piece of evidence ended in exactly one place."""
        lines = {file.name: file.lines for file in self._files}
        counts = self._counts()
        assert counts["in"] == counts["rows"] + counts["drafts"] + counts["quarantined"], counts
        assert counts["quarantined"] == lines[QUARANTINE], (counts, lines)
        assert counts["rows"] == sum(self._splits.values()), (counts, self._splits)
        for name, rows in self._splits.items():
            assert lines[f"{name}.jsonl"] == lines[f"{name}.provenance.jsonl"] == rows, (name, lines)

    def _counts(self) -> dict[str, int]:
        tally = self._tally
        return {
            "in": tally.seen,
            "rows": tally.rows,
            "drafts": tally.drafts,
            "quarantined": tally.reasons.total(),
        }

    def _read(self, task: ShardTask, done: Done) -> Iterator[Material]:
        for path, sha256 in (
            (task.shard.evidence, done.evidence_sha256),
            (task.shard.scored, done.scored_sha256),
        ):
            size = path.stat().st_size
            inside = path.is_relative_to(self._data)
            yield Material(
                uri=str(path.relative_to(self._data)) if inside else str(path),
                sha256=sha256,
                bytes=size,
                lines=task.shard.lines,
                last_offset=size,
            )

    # --- what describes the files -------------------------------------------------------------

    def manifest(
        self, hashes: tuple[str, str], versions: tuple[str, str], key: dict[str, str]
    ) -> DatasetManifest:
        """Write card, report and manifest beside the files."""
        content: dict[str, Any] = {
            "kind": self._kind,
            "target": self._target,
            "files": [file.model_dump(mode="json") for file in self._files],
            "counts": self._counts(),
            "splits": self._splits,
            "groups": self._groups,
            "reasons": dict(sorted(self._tally.reasons.items())),
            "pii": dict(sorted(self._tally.pii.items())),
            "options": _options(self._options),
            "evidence_sha256": hashes[0],
            "scored_sha256": hashes[1],
            "scorer_version": versions[0],
            "policy_version": versions[1],
        }
        content["dataset_id"] = f"{self._kind}-{self._target}-{content_id(content)[:16]}"
        manifest = DatasetManifest.model_validate(content)
        self._describe(manifest)
        manifest = manifest.model_copy(update={"files": self._files, **key})
        files.replace(self._made / MANIFEST, canonical_bytes(manifest.model_dump(mode="json")) + b"\n")
        return manifest

    def _describe(self, manifest: DatasetManifest) -> None:
        card = croissant.card(
            manifest.dataset_id, self._kind, self._target, self._files, self._options.pii.model_dump()
        )
        page = report(
            manifest,
            categories=self._tally.categories,
            sources=self._tally.sources,
            lengths=self._tally.lengths,
        )
        self._add(CARD, canonical_bytes(card) + b"\n")
        self._add(REPORT, page.encode())
        if self._target == "llamafactory":
            info = croissant.dataset_info(manifest.dataset_id, self._kind)
            self._add(DATASET_INFO, canonical_bytes(info) + b"\n")

    def _add(self, name: str, content: bytes) -> None:
        path = self._made / name
        files.replace(path, content)
        self._files = [*self._files, _product(path)]

    # --- the end ------------------------------------------------------------------------------

    def publish(self, manifest: DatasetManifest, materials: list[Material], started_at: datetime) -> Exported:
        """Sign what was made, and give the folder its name in one step.

        A dataset that is there already has the same content, which is checked, and stays as it is.
        """
        final = self._data / DATASETS / manifest.dataset_id
        there = final.exists()
        if there:
            _require_same(final, manifest)
        names = [*(file.name for file in manifest.files), MANIFEST]
        products = [_product((final if there else self._made) / name) for name in names]

        def place(receipt: bytes) -> None:
            if not there:
                files.replace(self._made / RECEIPT, receipt)
                self._made.replace(final)
                files.sync_folder(final.parent)

        written = Receipts(self._data).write(
            "export",
            materials=materials,
            products=[_named(product, manifest.dataset_id) for product in products],
            counts=manifest.counts,
            config=_options(self._options),
            schema_versions={one.schema_id: one.version for one in (Provenance, Quarantined)},
            policy_version=manifest.policy_version,
            started_at=started_at,
            publish=place,
        )
        return Exported(manifest, written.ref)


def _require_same(final: Path, manifest: DatasetManifest) -> None:
    for file in manifest.files:
        path = final / file.name
        if file.name.endswith(".jsonl") and (not path.exists() or _product(path) != file):
            raise Conflict(
                f"{DATASETS}/{final.name}/{file.name} is not as it was exported; move the folder away, and"
                " export again",
                code="dataset_damaged",
            )


def _product(path: Path) -> ProductFile:
    """A file of a dataset by its bare name, as the dataset's own manifest has it."""
    return product_of(path.parent, path)


def _named(product: ProductFile, dataset_id: str) -> ProductFile:
    return product.model_copy(update={"name": f"{DATASETS}/{dataset_id}/{product.name}"})


def _summary(tally: Tally) -> str:
    listed = ", ".join(f"{count} × {code}" for code, count in sorted(tally.reasons.items()))
    return listed or "there is no evidence"
