"""Materialize: the log and imported files become evidence, each call joined with what was said of it.

A pure function of its inputs: no clock and no chance in it, each shard sorted by id, so the same inputs give
the same bytes, in however many processes and however often it was interrupted. Read first are the keys, then
the joins between parts are found, then those shards are written whose lines or joins are not as before.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import structlog
from numpy.typing import NDArray

from distill.engine import inputs, link, notes, partindex, shards
from distill.engine.assemble import NOTHING_SAID, Said, evidence_of, feedback_of, review_of
from distill.engine.inputs import Input, Part
from distill.engine.link import JOIN, Joins, Linked, LinkTask
from distill.engine.lookup import write_evidence, write_lookup
from distill.engine.partindex import PartIndex
from distill.engine.pool import Pool
from distill.engine.products import ProductWriter
from distill.engine.progress import Progress
from distill.engine.scan import Scanned, ScanTask, parsed, scan
from distill.engine.shards import EvidenceManifest, EvidenceShard
from distill.engine.sources import AGAIN, OWN, Turn, Unreadable
from distill.engine.sources.stillhouse import checked
from schemas.evidence import ProductFile, Quarantined, Source
from services import files
from services.errors import Conflict

log = structlog.get_logger(__name__)

LAYOUT: Final = "2"
"""Part of every shard's name: what is written otherwise than before has to be written again."""
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
    if counts["in"] and not counts["out"]:
        raise Conflict(
            f"none of {counts['in']} lines is a call of a model: {counts['quarantined']} cannot be read",
            code="nothing_accepted",
        )
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


@dataclass(frozen=True, slots=True)
class WriteTask:
    """A part, what is joined to it, and where the inputs of joins lie."""

    read: Scanned
    joins_file: Path
    joins: Joins
    origins: Mapping[int, Path]
    data: Path

    @property
    def stem(self) -> str:
        """The name of the shard's files."""
        name = self.read.part.name
        return f"{name}-{shards.key(LAYOUT, name, self.read.sha256, self.joins.sha256)}"

    @property
    def note(self) -> Path:
        return self.data / shards.FOLDER / shards.INDEX / f"{self.stem}.evidence"

    def finished(self) -> EvidenceShard | None:
        """The shard as it was written before, if that was here and its files are all there."""
        known = notes.kept(self.data, self.note)
        if known is None or not self.note.with_suffix(".ids").exists():
            return None
        shard = EvidenceShard.model_validate(known)
        made = [product for product in (shard.evidence, shard.quarantine) if product is not None]
        return shard if all(shards.is_there(self.data, product) for product in made) else None


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


def write_shard(task: WriteTask) -> EvidenceShard:
    """Write one shard, its ids and, when those are there, the note that it is finished."""
    writer = ShardWriter(task)
    lines = writer.lines()
    folder = task.data / shards.FOLDER
    evidence, ids = write_evidence(folder / shards.EVIDENCE / f"{task.stem}.jsonl", lines)
    (folder / shards.INDEX / f"{task.stem}.ids").write_bytes(ids)
    quarantine = _write_quarantine(folder / shards.QUARANTINE / f"{task.stem}.jsonl", writer.quarantined)
    part = task.read.part
    shard = EvidenceShard(
        name=part.name,
        kind=part.kind,
        segment=part.segment,
        path=_below(task.data, part.path),
        number=part.number,
        start=part.start,
        end=part.end,
        input_sha256=task.read.sha256,
        joins_sha256=task.joins.sha256,
        evidence=_named(evidence, shards.EVIDENCE),
        quarantine=_named(quarantine, shards.QUARANTINE) if quarantine else None,
        counts=writer.counts(),
    )
    notes.keep(task.data, task.note, shard.model_dump(mode="json"))
    return shard


def _below(data: Path, path: Path) -> str:
    """The path as the manifest has it: the same on every machine, wherever its data folder is."""
    return str(path.relative_to(data) if path.is_relative_to(data) else path)


def _named(product: ProductFile, kind: str) -> ProductFile:
    return product.model_copy(update={"name": f"{shards.FOLDER}/{kind}/{product.name}"})


def _write_quarantine(path: Path, records: Sequence[Quarantined]) -> ProductFile | None:
    if not records:
        return None
    with ProductWriter(path) as product:
        for record in records:
            product.write(record)
        return product.finish()


class ShardWriter:
    """Makes the evidence of one part from its lines and its joins."""

    def __init__(self, task: WriteTask) -> None:
        self._part = task.read.part
        self._index = PartIndex(task.read.index)
        rows = self._index.table("rows")
        self._kinds: list[int] = rows["kind"].tolist()
        self._offsets: list[int] = rows["offset"].tolist()
        self._lengths: list[int] = rows["length"].tolist()
        self._ids = rows["evidence_id"].tobytes()
        self._hashes = rows["sha256"].tobytes()
        self._files = _Files(task.origins)
        self._joins = _by_row(np.fromfile(task.joins_file, JOIN, task.joins.count, offset=task.joins.offset))
        self._repeated = 0
        self._out = 0
        self.quarantined: list[Quarantined] = []

    def lines(self) -> list[tuple[bytes, bytes]]:
        """Ids and lines of the evidence, in the order of ids."""
        made: list[tuple[bytes, bytes]] = []
        with self._files:
            for row, kind in enumerate(self._kinds):
                if kind == partindex.IS_RUN:
                    evidence_id = self._ids[row * 32 : row * 32 + 32]
                    line = self._line(row, evidence_id.hex())
                    if line is not None:
                        made.append((evidence_id, line))
                elif kind == partindex.BAD:
                    bad = self._index.bad[row]
                    self._set_aside(row, bad.code, bad.detail)
        made.sort()
        self._out = len(made)
        return made

    def counts(self) -> dict[str, int]:
        lines, aside = len(self._kinds), len(self.quarantined)
        return {
            "in": lines,
            "out": self._out,
            "repeated": self._repeated,
            "quarantined": aside,
            "notes": lines - self._out - self._repeated - aside,
        }

    def _line(self, row: int, evidence_id: str) -> bytes | None:
        """The evidence in a line; None for one that repeats another or contradicts it."""
        joins = self._joins.get(row, ())
        for join in joins:
            if join["what"] == link.REPEATED:
                self._repeated += 1
                return None
            if join["what"] == link.CONFLICT:
                self._set_aside(row, "run_id_conflict", "another record with other content has this id")
                return None
        data = self._files.read(self._part.path, self._offsets[row], self._lengths[row])
        turn = AGAIN[self._part.kind](orjson.loads(data))
        assert isinstance(turn, Turn)
        evidence = evidence_of(turn, evidence_id, self._source(row, turn.key), self._said(joins))
        return orjson.dumps(evidence, option=orjson.OPT_APPEND_NEWLINE)

    def _said(self, joins: Sequence[np.void]) -> Said:
        if not joins:
            return NOTHING_SAID
        said = NOTHING_SAID
        feedback: list[Json] = []
        review: list[Json] = []
        for join in joins:
            what = join["what"]
            if what == link.COPIES:
                said = replace(said, duplicates=int(join["length"]))
            elif what == link.REPAIR_OF:
                said = replace(said, repair_of=join["evidence_id"].tobytes().hex())
            elif what == link.REPAIRED_BY:
                said = replace(said, repaired_by=join["evidence_id"].tobytes().hex())
            elif what == link.VERDICT:
                said = replace(said, verdict=self._joined(join)["verdict"])
            elif what == link.REVIEW:
                review.append(review_of(self._joined(join)))
            else:
                scope = "run" if what == link.FEEDBACK else "episode"
                feedback.append(feedback_of(self._joined(join), scope))
        feedback.sort(key=lambda one: (one["feedback_id"], one["ts"]))
        review.sort(key=lambda one: (one["ts"], one["review_id"]))
        return replace(said, feedback=feedback, review=review)

    def _joined(self, join: np.void) -> Json:
        data = self._files.read_from(int(join["origin"]), int(join["offset"]), int(join["length"]))
        return checked(orjson.loads(data))

    def _source(self, row: int, key: str) -> Json:
        return {
            "kind": self._part.kind,
            "key": key,
            "segment": self._part.segment,
            "offset": self._offsets[row],
            "length": self._lengths[row],
            "line_sha256": self._hashes[row * 32 : row * 32 + 32].hex(),
        }

    def _set_aside(self, row: int, code: str, detail: str) -> None:
        key = f"{self._part.segment}:{self._offsets[row]}"
        source = Source.model_validate(self._source(row, key))
        self.quarantined.append(Quarantined(reason=code, detail=detail, source=source))


def _by_row(joins: NDArray[np.void]) -> dict[int, list[np.void]]:
    found: dict[int, list[np.void]] = {}
    for join in joins:
        found.setdefault(int(join["row"]), []).append(join)
    return found


class _Files:
    """The inputs that joins lie in, each opened once."""

    def __init__(self, origins: Mapping[int, Path]) -> None:
        self._origins = origins
        self._open: dict[Path, int] = {}

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def read(self, path: Path, offset: int, length: int) -> bytes:
        descriptor = self._open.get(path)
        if descriptor is None:
            descriptor = self._open[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(descriptor, length, offset)

    def read_from(self, origin: int, offset: int, length: int) -> bytes:
        return self.read(self._origins[origin], offset, length)


def _clean(folder: Path, read: Sequence[Scanned], manifest: EvidenceManifest) -> None:
    """Remove what the manifest names no more."""
    products = {Path(product.name).name for product in _products(manifest)}
    shards.keep_only(folder / shards.EVIDENCE, products)
    shards.keep_only(folder / shards.QUARANTINE, products)
    stems = {Path(shard.evidence.name).stem for shard in manifest.shards}
    index = folder / shards.INDEX
    shards.keep_only(index, {one.index.name for one in read}, "*.idx")
    shards.keep_only(index, {f"{stem}.ids" for stem in stems}, "*.ids")
    shards.keep_only(index, {f"{stem}.evidence" for stem in stems}, "*.evidence")
    shards.keep_only(index, set(), ".*")
    (index / "joins").unlink(missing_ok=True)
