"""A small data folder with a log, evidence, a quarantine and a dataset, vouched for as the stages do it."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from distill.engine.identity import evidence_id_of
from distill.engine.receipts import Receipts, Written, material_of, product_of
from schemas.canonical import canonical_bytes
from schemas.evidence import Provenance, Quarantined, Scored, SegmentManifest, Source
from schemas.runs import Run
from tests.unit.distill.builders import Json, run

DATASET = "datasets/sft-openai-0123456789abcdef"
VERSIONS = {"stillhouse.evidence": "1.0"}


def build(data: Path, *, runs: int = 12) -> None:
    """Two segments, the first one sealed, and every stage run once."""
    log = data / "log"
    log.mkdir(parents=True)
    lines = [canonical_bytes(run(f"r{number:03d}")) + b"\n" for number in range(runs)]
    half = runs // 2
    for number, part in ((1, lines[:half]), (2, lines[half:])):
        (log / f"runs-{number:06d}.jsonl").write_bytes(b"".join(part))
    seal(log / "runs-000001.jsonl")
    materialize(data)
    score(data)
    export(data)


def seal(segment: Path) -> None:
    """Put a segment's manifest beside it."""
    content = segment.read_bytes()
    manifest = SegmentManifest(
        segment=segment.name,
        sha256=hashlib.sha256(content).hexdigest(),
        lines=content.count(b"\n"),
        bytes=len(content),
    )
    segment.with_name(f"{segment.stem}.manifest.json").write_text(manifest.model_dump_json() + "\n")


def materialize(data: Path) -> Written:
    segments = sorted((data / "log").glob("runs-*.jsonl"))
    products = []
    count = 0
    for segment in segments:
        found = sorted(_evidence(segment), key=lambda one: str(one["evidence_id"]))
        count += len(found)
        products += [
            _write(data, f"distill/evidence/{segment.name}", found),
            _write(data, f"distill/quarantine/{segment.name}", []),
        ]
    torn = Quarantined(reason="torn", detail="half a line", source=_source(segments[0], 0, 5, None))
    products[1] = _write(data, f"distill/quarantine/{segments[0].name}", [torn.model_dump(mode="json")])
    return vouch(
        data,
        "materialize",
        [material_of(data, segment) for segment in segments],
        products,
        {"in": count + 1, "out": count, "quarantined": 1},
    )


def score(data: Path) -> Written:
    products = []
    evidence = sorted((data / "distill" / "evidence").glob("*.jsonl"))
    count = 0
    for shard in evidence:
        scored = [
            Scored(
                evidence_id=orjson.loads(line)["evidence_id"],
                category="accepted",
                reasons=[],
                scorer_version="1",
                policy_version="1",
            ).model_dump(mode="json")
            for line in shard.read_bytes().splitlines()
        ]
        count += len(scored)
        products.append(_write(data, f"distill/scored/{shard.name}", scored))
    materials = [material_of(data, shard) for shard in evidence]
    return vouch(data, "score", materials, products, {"in": count, "accepted": count})


def export(data: Path) -> Written:
    rows, provenance = [], []
    folders = [data / "distill" / name for name in ("evidence", "scored")]
    shards = [shard for folder in folders for shard in sorted(folder.glob("*.jsonl"))]
    for shard in sorted(folders[0].glob("*.jsonl")):
        for line in shard.read_bytes().splitlines():
            evidence = orjson.loads(line)
            row = {"messages": [*evidence["input"]["messages"], {"role": "assistant"}]}
            rows.append(row)
            provenance.append(
                Provenance(
                    line=len(rows),
                    line_sha256=hashlib.sha256(orjson.dumps(row) + b"\n").hexdigest(),
                    evidence_id=evidence["evidence_id"],
                    source=Source.model_validate(evidence["source"]),
                ).model_dump(mode="json")
            )
    products = [
        _write(data, f"{DATASET}/train.jsonl", rows),
        _write(data, f"{DATASET}/train.provenance.jsonl", provenance),
        _write(data, f"{DATASET}/quarantine.jsonl", [_left_out(provenance[0])]),
        _write(data, f"{DATASET}/manifest.json", [{"dataset_id": DATASET}]),
    ]
    counts = {"in": len(rows) + 1, "rows": len(rows), "quarantined": 1}
    written = vouch(data, "export", [material_of(data, shard) for shard in shards], products, counts)
    (data / DATASET / "receipt.dsse.json").write_bytes(written.content)
    return written


def vouch(data: Path, stage: str, materials: Any, products: Any, counts: dict[str, int]) -> Written:
    receipts = Receipts(data)
    receipts.prepare()
    return receipts.write(
        stage,
        materials=materials,
        products=products,
        counts=counts,
        config={"stage": stage},
        schema_versions=VERSIONS,
        started_at=datetime.now(UTC),
    )


def _evidence(segment: Path) -> list[Json]:
    found, offset = [], 0
    for line in segment.read_bytes().splitlines(keepends=True):
        record = Run.model_validate_json(line)
        source = _source(segment, offset, len(line), record.run_id)
        found.append(
            {
                "evidence_id": evidence_id_of(record),
                "input": {"messages": record.request.messages},
                "source": source.model_dump(mode="json"),
            }
        )
        offset += len(line)
    return found


def _source(segment: Path, offset: int, length: int, key: str | None) -> Source:
    raw = segment.read_bytes()[offset : offset + length]
    return Source(
        kind="stillhouse",
        key=key or f"{segment.name}:{offset}",
        segment=segment.name,
        offset=offset,
        length=length,
        line_sha256=hashlib.sha256(raw).hexdigest(),
    )


def _left_out(provenance: Json) -> Json:
    source = Source.model_validate(provenance["source"])
    left = Quarantined(
        reason="pii.ssn", detail="masked", source=source, evidence_id=provenance["evidence_id"]
    )
    return left.model_dump(mode="json")


def _write(data: Path, name: str, records: list[Json]) -> Any:
    path = data / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
    return product_of(data, path)
