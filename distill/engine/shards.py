"""What stands after a stage: shards of evidence and of categories, named by what they were made from.

A shard's file is named by the hash of its inputs, so one that is there is finished, and one that is made anew
never takes the place of one that somebody reads. `evidence.json` and `scored.json` say which ones count; they
are replaced in one step at the end of a stage.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import TypeAdapter

from distill.engine.products import write_whole
from schemas.base import Model
from schemas.canonical import canonical_bytes
from schemas.evidence import Count, ProductFile, Sha256
from services import files

FOLDER: Final = "distill"
EVIDENCE: Final = "evidence"
QUARANTINE: Final = "quarantine"
SCORED: Final = "scored"
INDEX: Final = "index"
"""Holds what can be made again from the rest; no product lies there."""


class EvidenceShard(Model):
    """The evidence of one part of an input. `joins_sha256` is over what was joined to it from elsewhere.

    `counts`: `in` lines, of which `out` became evidence, `repeated` were there before, `quarantined` could
    not be read, and `notes` are said of other lines.
    """

    name: str
    kind: str
    segment: str
    path: str
    number: Count
    start: Count
    end: Count
    input_sha256: Sha256
    joins_sha256: Sha256
    evidence: ProductFile
    quarantine: ProductFile | None
    counts: dict[str, Count]


class EvidenceManifest(Model):
    """All shards in the order of the log. `counts["in"]` is the sum of the other counts."""

    shards: list[EvidenceShard]
    counts: dict[str, Count]


class ScoredShard(Model):
    """The categories of one shard of evidence, in the same order."""

    name: str
    evidence_sha256: Sha256
    scored: ProductFile
    counts: dict[str, Count]


class ScoredManifest(Model):
    """`rules_sha256` is over the rules that were applied. `counts["in"]` is the sum of the other counts."""

    shards: list[ScoredShard]
    scorer_version: str
    policy_version: str
    rules_sha256: Sha256
    counts: dict[str, Count]


EVIDENCE_MANIFEST: Final = "evidence.json"
SCORED_MANIFEST: Final = "scored.json"

_EVIDENCE: Final = TypeAdapter(EvidenceManifest)
_SCORED: Final = TypeAdapter(ScoredManifest)


def key(*parts: str) -> str:
    """Names what was made from these: equal parts, equal name."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def write_manifest(path: Path, manifest: Model) -> ProductFile:
    content = canonical_bytes(manifest.model_dump(mode="json")) + b"\n"
    return write_whole(path, content, f"{FOLDER}/{path.name}")


def evidence_manifest(folder: Path) -> EvidenceManifest | None:
    """What `materialize` left in `folder`, or None."""
    stamp = _stamp(folder / EVIDENCE_MANIFEST)
    return _read_evidence(folder / EVIDENCE_MANIFEST, stamp) if stamp else None


def scored_manifest(folder: Path) -> ScoredManifest | None:
    """What `score` left in `folder`, or None."""
    stamp = _stamp(folder / SCORED_MANIFEST)
    return _read_scored(folder / SCORED_MANIFEST, stamp) if stamp else None


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


@lru_cache(maxsize=4)
def _read_evidence(path: Path, _: tuple[int, ...]) -> EvidenceManifest:
    return _EVIDENCE.validate_json(path.read_bytes())


@lru_cache(maxsize=4)
def _read_scored(path: Path, _: tuple[int, ...]) -> ScoredManifest:
    return _SCORED.validate_json(path.read_bytes())


def total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Counts added up by name."""
    added: dict[str, int] = {}
    for one in counts:
        for name, count in one.items():
            added[name] = added.get(name, 0) + count
    return added


def digest_of(products: Sequence[ProductFile]) -> str:
    """One hash over several files, by their hashes in order."""
    return hashlib.sha256("\n".join(product.sha256 for product in products).encode()).hexdigest()


def file_of(data: Path, product: ProductFile) -> Path:
    """Where a product lies. Products are named by their path below the data folder."""
    return data / product.name


def is_there(data: Path, product: ProductFile) -> bool:
    """Whether a product lies where it should, in its size. What is in it is for an audit to say."""
    try:
        return file_of(data, product).stat().st_size == product.bytes
    except FileNotFoundError:
        return False


def keep_only(folder: Path, names: set[str], pattern: str = "*") -> None:
    """Remove files that no manifest names any more, and what a process that was killed left half-written."""
    for path in folder.glob(pattern):
        if path.name not in names:
            path.unlink(missing_ok=True)


def record(path: Path, value: Any) -> None:
    """Leave a note beside a finished file, for whoever finds it finished."""
    files.replace(path, orjson.dumps(value))
