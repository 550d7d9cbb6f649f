"""One run of the stage: the windows measured, compared, and what came of it written down."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from distill.engine import columns, shards
from distill.engine.columns import Columns
from distill.engine.drift import statistics
from distill.engine.drift.comparison import compare
from distill.engine.drift.profile import Evidence, profile_of
from distill.engine.drift.windows import Span, spans
from distill.engine.library import Library, Shard
from distill.engine.products import write_whole
from distill.engine.progress import Progress
from distill.engine.receipts import Receipts
from distill.engine.times import EPOCH
from schemas.canonical import content_id
from schemas.distill import JobRequest
from schemas.drift import DriftProfile
from schemas.evidence import ProductFile
from schemas.proof import Material, ReceiptRef
from schemas.replay import Drift, Window
from services.errors import Conflict, NotFound

FOLDER: Final = "drift"
PROFILE: Final = ".profile.json"
RECORD: Final = ".json"
FILE: Final = re.compile(r"[0-9a-f]{16}(\.profile)?\.json")
OPTIONS: Final = frozenset(
    {
        "since",
        "until",
        "baseline_since",
        "baseline_until",
        "profile",
        "measure_only",
        "alpha",
        "seed",
    }
)
"""The fields of a job that belong to drift."""
READ_UNTIL: Final = 0.6
MEASURED_AT: Final = 0.8


@dataclass(frozen=True, slots=True)
class Drifted:
    """What was found, unless nothing was to be compared, and the files that tell it.

    `counts["in"]` is every piece of evidence, and the sum of the other counts.
    """

    drift: Drift | None
    products: list[ProductFile]
    counts: dict[str, int]
    receipt: ReceiptRef


def drift(data: Path, options: JobRequest, progress: Progress) -> Drifted:
    """Compare two windows of the evidence below `data`, or one with a profile. `options` were `checked`.

    Raises `Conflict` when an earlier stage is missing or stale, and for a window without evidence.
    """
    started_at = datetime.now(UTC)
    receipts = Receipts(data)
    receipts.prepare()
    library = Library(data / shards.FOLDER)
    library.require()
    evidence = _read(data / shards.FOLDER / shards.INDEX, library.shards(), progress)
    measured = _measured(evidence, library.hashes()[0], options)
    progress.reach(1, 1, end=MEASURED_AT)
    found = _compared(measured, options, library.versions())
    products = _write(data, measured.current, found)
    written = receipts.write(
        "drift",
        materials=_materials(library),
        products=products,
        counts=measured.counts,
        config=_config(options),
        schema_versions={Drift.schema_id: Drift.version},
        started_at=started_at,
        policy_version=library.versions()[1],
        seed=options.seed,
    )
    return Drifted(found, products, measured.counts, written.ref)


def file_of(data: Path, name: str) -> Path:
    """Where a drift record or a profile lies. Raises `NotFound`."""
    path = data / FOLDER / name
    if FILE.fullmatch(name) is None or not path.is_file():
        raise NotFound(f"there is no drift file {name!r}", code="file_not_found")
    return path


def _read(index: Path, parts: Sequence[Shard], progress: Progress) -> Evidence:
    """The columns of all shards."""
    return Evidence.of(_columns(index, parts, progress), sum(part.lines for part in parts))


def _columns(index: Path, parts: Sequence[Shard], progress: Progress) -> Iterator[Columns]:
    for done, shard in enumerate(parts, start=1):
        read = columns.read(columns.path_of(index, shard.scored))
        if read is None:
            raise Conflict(
                f"{shard.scored.name} was scored by an older version; run the stage `score` again",
                code="stage_stale",
            )
        yield read
        progress.reach(done, len(parts), end=READ_UNTIL)


@dataclass(frozen=True, slots=True)
class _Measured:
    baseline: DriftProfile | None
    current: DriftProfile
    counts: dict[str, int]


def _measured(evidence: Evidence, digest: str, options: JobRequest) -> _Measured:
    """The profiles of the windows. A given one is the baseline as it is; what a replay did is in neither."""
    observed = ~evidence.rows["replay"]
    first, second = spans(options, evidence.rows["ts"][observed])

    def profile(name: str, span: Span) -> DriftProfile:
        held = observed & span.holds(evidence.rows["ts"])
        count = int(np.count_nonzero(held))
        if not count:
            raise _empty(name, span)
        window = Window(name=name, since=span.since, until=span.until, evidence_sha256=digest, count=count)
        return profile_of(evidence, held, window)

    current = profile("current", second)
    baseline = profile("baseline", first) if first is not None else None
    counts = {
        "in": len(evidence.rows),
        "baseline": baseline.window.count if baseline is not None else 0,
        "current": current.window.count,
        "replays": len(observed) - int(np.count_nonzero(observed)),
    }
    counts["outside"] = 2 * counts["in"] - sum(counts.values())
    return _Measured(baseline or options.profile, current, counts)


def _empty(name: str, span: Span) -> Conflict:
    return Conflict(
        f"there is no evidence in the {name} window, {_told(span)}; at least one piece is needed",
        code="window_empty",
    )


def _told(span: Span) -> str:
    since = span.since.isoformat() if span.since else "the beginning"
    return f"from {since} to {span.until.isoformat() if span.until else 'the end'}"


def _compared(measured: _Measured, options: JobRequest, versions: tuple[str, str]) -> Drift | None:
    before, now = measured.baseline, measured.current
    if before is None:
        return None
    found = compare(before, now, alpha=options.alpha, seed=options.seed)
    return Drift(
        ts=max((one.latest for one in (before, now) if one.latest is not None), default=EPOCH),
        baseline=before.window,
        current=now.window,
        inputs=found.inputs,
        outputs=found.outputs,
        flips=found.flips,
        alpha=options.alpha,
        parameters={
            "seed": options.seed,
            "draws": statistics.DRAWS,
            "resamples": statistics.RESAMPLES,
            "baseline_tasks": before.tasks,
            "current_tasks": now.tasks,
            "scorer_version": versions[0],
            "policy_version": versions[1],
        },
    )


def _write(data: Path, profile: DriftProfile, found: Drift | None) -> list[ProductFile]:
    """Write what was found, named by its content: the same comparison again is the same file."""
    (data / FOLDER).mkdir(parents=True, exist_ok=True)
    whole = (found or profile).model_dump(mode="json")
    name = content_id(whole)[:16]
    contents = {f"{name}{PROFILE}": profile.model_dump_json().encode() + b"\n"}
    if found is not None:
        contents[f"{name}{RECORD}"] = found.to_line()
    return [
        write_whole(data / FOLDER / file, content, f"{FOLDER}/{file}")
        for file, content in sorted(contents.items())
    ]


def _config(options: JobRequest) -> dict[str, Any]:
    """What was asked for; a profile by its hash."""
    config: dict[str, Any] = options.model_dump(mode="json", include=set(OPTIONS - {"profile"}))
    if options.profile is not None:
        config["profile_sha256"] = content_id(options.profile.model_dump(mode="json"))
    return config


def _materials(library: Library) -> list[Material]:
    """What the columns were made of."""
    evidence, scored = library.evidence_manifest, library.scored_manifest
    assert evidence is not None
    assert scored is not None
    read = [*(shard.evidence for shard in evidence.shards), *(shard.scored for shard in scored.shards)]
    return [
        Material(uri=one.name, sha256=one.sha256, bytes=one.bytes, lines=one.lines, last_offset=one.bytes)
        for one in read
    ]
