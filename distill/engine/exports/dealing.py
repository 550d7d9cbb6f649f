"""The second pass: the rows of each shard dealt out to the splits, then the parts joined to the files of
the dataset.
"""

import hashlib
import os
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from distill.engine.exports.grouping import Share
from distill.engine.exports.rowing import left_out, part
from distill.engine.exports.splits import DUPLICATE, HOLDOUT, SPLITS, TOUCHES_HOLDOUT, group_name
from schemas.evidence import ProductFile

CHUNK_BYTES: Final = 1 << 20

REASONS: Final = {
    DUPLICATE: ("row.duplicate", "the same row is in the dataset already"),
    TOUCHES_HOLDOUT: ("split.touches_holdout", "the row belongs to a group of which a part is held out"),
}


@dataclass(frozen=True, slots=True)
class DealTask:
    """The rows of a shard, and what was decided on them."""

    work: Path
    share: Share
    salt: str


@dataclass(frozen=True, slots=True)
class Dealt:
    """What was left out, by reason, and the evidence that is held out."""

    reasons: Counter[str]
    held_ids: list[str]


def deal_shard(task: DealTask) -> Dealt:
    """Write the rows of a shard into a part of each split, each with its provenance beside it."""
    share = task.share
    lines = list(share.lines)
    dealt = Dealt(Counter(), [])
    with ExitStack() as stack:

        def opened(what: str, mode: str = "wb") -> Any:
            return stack.enter_context(part(task.work, share.number, what).open(mode))

        rows, stubs = opened("rows", "rb"), opened("stubs", "rb")
        outs = [(opened(f"{name}.jsonl"), opened(f"{name}.provenance.jsonl")) for name in SPLITS]
        left = opened("left2")
        decided = zip(
            share.split.tolist(), share.group.tolist(), share.exact.tolist(), share.near.tolist(), strict=True
        )
        for row, stub, (split, group, exact, alike) in zip(rows, stubs, decided, strict=True):
            if split in REASONS:
                code, detail = REASONS[split]
                dealt.reasons[code] += 1
                left.write(left_out(orjson.loads(stub), code, detail))
                continue
            lines[split] += 1
            outs[split][0].write(row)
            known = {
                "line": lines[split],
                "split": SPLITS[split],
                "group": group_name(group, task.salt),
                "duplicates": {"exact": exact, "near": alike},
            }
            outs[split][1].write(_provenance(known, stub))
            if split == HOLDOUT:
                dealt.held_ids.append(_id_of(stub))
    return dealt


def _provenance(known: dict[str, Any], stub: bytes) -> bytes:
    """A provenance line: what is known now, and the stub behind it."""
    record = {"schema": "stillhouse.provenance", "schema_version": "1.0", "ext": {}, **known}
    return orjson.dumps(record)[:-1] + b"," + stub[1:]


def _id_of(stub: bytes) -> str:
    evidence_id: str = orjson.loads(stub)["evidence_id"]
    return evidence_id


@dataclass(frozen=True, slots=True)
class JoinTask:
    """A file of the dataset and the parts that it is made of, in order."""

    parts: tuple[Path, ...]
    path: Path


def join_parts(task: JoinTask) -> ProductFile:
    """Write a file from its parts, durably."""
    digest = hashlib.sha256()
    lines = size = 0
    with task.path.open("wb") as file:
        for path in task.parts:
            with path.open("rb") as source:
                while chunk := source.read(CHUNK_BYTES):
                    file.write(chunk)
                    digest.update(chunk)
                    lines += chunk.count(b"\n")
                    size += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    return ProductFile(name=task.path.name, sha256=digest.hexdigest(), lines=lines, bytes=size)


def parts_of(work: Path, count: int, *whats: str) -> tuple[Path, ...]:
    """The parts of a file, shard by shard."""
    return tuple(part(work, number, what) for number in range(count) for what in whats)
