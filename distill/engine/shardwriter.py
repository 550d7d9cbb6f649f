"""One shard of evidence: made of the lines of a part, and of what is joined to them from elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from distill.engine import link, notes, partindex, shards
from distill.engine.assemble import NOTHING_SAID, Said, evidence_of, feedback_of, review_of
from distill.engine.link import JOIN, Joins
from distill.engine.lookup import write_evidence
from distill.engine.openfiles import OpenFiles
from distill.engine.partindex import PartIndex
from distill.engine.products import ProductWriter
from distill.engine.scan import Scanned
from distill.engine.shards import EvidenceShard
from distill.engine.sources import AGAIN, Turn
from distill.engine.sources.stillhouse import checked
from schemas.evidence import ProductFile, Quarantined, Source

LAYOUT: Final = "2"
"""Part of every shard's name: what is written otherwise than before has to be written again."""

Json = dict[str, Any]


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
        self._files = OpenFiles()
        self._origins = task.origins
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
        origin = self._origins[int(join["origin"])]
        data = self._files.read(origin, int(join["offset"]), int(join["length"]))
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
