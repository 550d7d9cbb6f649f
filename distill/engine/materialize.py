"""Materialize: the log and imported files become evidence, each call joined with what was said of it.

A pure function of its inputs: no clock and no chance in it, each shard sorted by id, so the same inputs give
the same bytes, in however many processes and however often it was interrupted. Read first are the keys, then
the joins between parts are found, then those shards are written whose lines or joins are not as before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from distill.engine import inputs, link, shards
from distill.engine.inputs import Input, Part
from distill.engine.link import Linked, LinkTask
from distill.engine.lookup import write_lookup
from distill.engine.pool import Pool
from distill.engine.progress import Progress
from distill.engine.scan import Scanned, ScanTask, parsed, scan
from distill.engine.shards import EvidenceManifest, EvidenceShard
from distill.engine.shardwriter import WriteTask, write_shard
from distill.engine.sources import OWN, Unreadable
from schemas.evidence import ProductFile
from services import files
from services.errors import Conflict

log = structlog.get_logger(__name__)

GATE_LINES: Final = 16
GATE_BAD_MAX: Final = 1
READ_UNTIL: Final = 0.5
LINKED_AT: Final = 0.55

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """`part_bytes` is about the size of a shard; longer lines than `line_bytes_max` are set aside."""

    part_bytes: int
    line_bytes_max: int
    depth_max: int


@dataclass(frozen=True, slots=True)
class Materialized:
    """`counts["in"]` is every line, and the sum of the other counts."""

    manifest: EvidenceManifest
    products: list[ProductFile]
    counts: dict[str, int]


def materialize(
    sources: Sequence[Input],
    data: Path,
    limits: Limits,
    pool: Pool,
    progress: Progress,
    *,
    only: str | None = None,
) -> Materialized:
    """Bring the evidence under `data/distill` up to what is in `sources`.

    With `only`, other sources stay as they were at the last time. Raises `Conflict` when the first records
    of a source cannot be read, and when there are lines and none of them becomes evidence.
    """
    folder = data / shards.FOLDER
    for name in (shards.EVIDENCE, shards.QUARANTINE, shards.INDEX):
        (folder / name).mkdir(parents=True, exist_ok=True)
    parts = _parts(sources, data, limits, only)
    _check_gate(parts, limits)
    read = _read(parts, folder, limits, pool, progress)
    joins = folder / shards.INDEX / "joins"
    linked = pool.call(link.link, LinkTask([(one.part, one.index) for one in read], joins))
    progress.reach(1, 1, end=LINKED_AT)
    written = _write(_write_tasks(read, linked, joins, data), data, pool, progress)
    counts = _counts(written, linked)
    if counts["in"] and not counts["out"]:
        _keep_products(folder, shards.evidence_manifest(folder))  # no receipt would vouch for the rest
        raise Conflict(
            f"none of {counts['in']} lines is a call of a model: {counts['quarantined']} cannot be read",
            code="nothing_accepted",
        )
    manifest = EvidenceManifest(shards=written, counts=counts)
    pool.call(write_lookup, (folder, manifest))
    product = shards.write_manifest(folder / shards.EVIDENCE_MANIFEST, manifest)
    _clean(folder, read, manifest)
    return Materialized(manifest, [*_products(manifest), product], counts)


def _products(manifest: EvidenceManifest) -> list[ProductFile]:
    return [
        product
        for shard in manifest.shards
        for product in (shard.evidence, shard.quarantine)
        if product is not None
    ]


def _counts(written: Sequence[EvidenceShard], linked: Linked) -> dict[str, int]:
    added = shards.total(shard.counts for shard in written)
    counts = {
        "in": added.get("in", 0),
        "out": added.get("out", 0),
        "joined": linked.joined,
        "unmatched": linked.unmatched,
        "duplicates": linked.duplicates,
        "quarantined": added.get("quarantined", 0),
    }
    assert counts["in"] == sum(counts.values()) - counts["in"], counts
    return counts


# --- what there is to read ----------------------------------------------------------------------


def _parts(
    sources: Sequence[Input], data: Path, limits: Limits, only: str | None
) -> list[tuple[Part, str | None]]:
    """The parts of all inputs, each with its hash where that is known from an earlier time."""
    folder = data / shards.FOLDER
    known = _Known(folder)
    chosen = [source for source in sources if only in (None, source.kind)]
    parts = [
        (part, known.digest_of(part)) for source in chosen for part in inputs.cut(source, limits.part_bytes)
    ]
    before = shards.evidence_manifest(folder) if only is not None else None
    for shard in before.shards if before else ():
        if shard.kind != only:
            part = Part(shard.kind, shard.segment, data / shard.path, shard.number, shard.start, shard.end)
            parts.append((part, shard.input_sha256))
    return sorted(parts, key=lambda one: (one[0].kind != OWN, one[0].segment, one[0].number))


class _Known:
    """Hashes of parts of files that have not been touched since they were taken."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / shards.INDEX / "inputs.json"
        self._files: dict[str, Json] = {}
        if self._path.exists():
            self._files = orjson.loads(self._path.read_bytes())

    def digest_of(self, part: Part) -> str | None:
        file = self._files.get(part.segment)
        if file is None or file["stamp"] != _stamp(part.path):
            return None
        digest: str | None = file["parts"].get(f"{part.start}-{part.end}")
        return digest

    def learn(self, read: Sequence[Scanned], stamps: Mapping[str, list[int]]) -> None:
        self._files = {name: {"stamp": stamp, "parts": {}} for name, stamp in stamps.items()}
        for one in read:
            self._files[one.part.segment]["parts"][f"{one.part.start}-{one.part.end}"] = one.sha256
        shards.record(self._path, self._files)


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_ino, found.st_mtime_ns, found.st_size]


def _check_gate(parts: Sequence[tuple[Part, str | None]], limits: Limits) -> None:
    """Look at the first records of each source: when those cannot be read, the rest is not worth the time."""
    for kind, its in inputs.by_source([part for part, _ in parts]).items():
        problems: list[str] = []
        seen = 0
        found = ((part, line) for part in its for line in inputs.lines(part, limits.line_bytes_max))
        for part, line in islice(found, GATE_LINES):
            seen += 1
            try:
                parsed(kind, line, limits.depth_max)
            except Unreadable as problem:
                problems.append(f"{part.segment} at byte {line.offset}: {problem.code}")
        if len(problems) > GATE_BAD_MAX:
            raise Conflict(
                f"{len(problems)} of the first {seen} records of the source `{kind}` cannot be read"
                f" ({'; '.join(problems[:3])}); at most {GATE_BAD_MAX} may be bad, nothing was changed",
                code="smoke_gate",
            )


# --- reading, writing -----------------------------------------------------------------------------


def _read(
    parts: Sequence[tuple[Part, str | None]], folder: Path, limits: Limits, pool: Pool, progress: Progress
) -> list[Scanned]:
    stamps = {part.segment: _stamp(part.path) for part, _ in parts}  # before the first look into the files
    index = folder / shards.INDEX
    tasks = [ScanTask(part, index, limits.line_bytes_max, limits.depth_max, digest) for part, digest in parts]
    missing = [task for task in tasks if not task.is_done()]
    read = {task.part: scan(task) for task in set(tasks).difference(missing)}
    for done, one in enumerate(pool.map(scan, missing), start=1):
        read[one.part] = one
        progress.reach(done, len(missing), end=READ_UNTIL)
    in_order = [read[task.part] for task in tasks]
    _Known(folder).learn(in_order, stamps)
    return in_order


def _write_tasks(read: Sequence[Scanned], linked: Linked, joins: Path, data: Path) -> list[WriteTask]:
    origins = {link.origin_of(one.part.segment): one.part.path for one in read}
    return [WriteTask(one, joins, its, origins, data) for one, its in zip(read, linked.joins, strict=True)]


def _write(tasks: Sequence[WriteTask], data: Path, pool: Pool, progress: Progress) -> list[EvidenceShard]:
    """Write the shards that are not there as they have to be."""
    finished = {task.stem: task.finished() for task in tasks}
    missing = [task for task in tasks if finished[task.stem] is None]
    for done, (task, shard) in enumerate(zip(missing, pool.map(write_shard, missing), strict=True), start=1):
        finished[task.stem] = shard
        progress.reach(done, len(missing), start=LINKED_AT)
    log.info("evidence written", shards=len(missing), kept=len(tasks) - len(missing))
    for name in (shards.EVIDENCE, shards.QUARANTINE):
        files.sync_folder(data / shards.FOLDER / name)
    return [shard for shard in finished.values() if shard is not None]


def _clean(folder: Path, read: Sequence[Scanned], manifest: EvidenceManifest) -> None:
    """Remove what the manifest names no more."""
    _keep_products(folder, manifest)
    stems = {Path(shard.evidence.name).stem for shard in manifest.shards}
    index = folder / shards.INDEX
    shards.keep_only(index, {one.index.name for one in read}, "*.idx")
    shards.keep_only(index, {f"{stem}.ids" for stem in stems}, "*.ids")
    shards.keep_only(index, {f"{stem}.evidence" for stem in stems}, "*.evidence")
    shards.keep_only(index, set(), ".*")
    (index / "joins").unlink(missing_ok=True)


def _keep_products(folder: Path, manifest: EvidenceManifest | None) -> None:
    products = {Path(product.name).name for product in _products(manifest)} if manifest else set()
    shards.keep_only(folder / shards.EVIDENCE, products)
    shards.keep_only(folder / shards.QUARANTINE, products)
