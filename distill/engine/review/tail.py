"""Decisions that came in since the evidence was made: read from the log's end, each byte once."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import orjson

from distill.engine.log import SegmentView
from distill.engine.review.decisions import Decided
from distill.engine.shards import EvidenceManifest
from distill.engine.sources import OWN
from schemas.review import Review

BLOCK_BYTES: Final = 1 << 20
MARK: Final = f'"schema":"{Review.schema_id}"'.encode()
"""In every review's line, since lines are canonical; other lines that have it are parsed to no avail."""


class Tail:
    """Decisions by evidence id, from the given places of the segments on.

    One thread at a time may `follow`. What `decided` holds never changes: others may go through it meanwhile.
    """

    def __init__(self, starts: Mapping[str, int]) -> None:
        self._at = dict(starts)
        self.decided: Mapping[str, tuple[Decided, ...]] = {}

    def follow(self, segments: Sequence[SegmentView]) -> None:
        """Take in what was appended since the last call. Blocks."""
        for segment in segments:
            start = self._at.get(segment.name, 0)
            for lines in _whole_lines(segment, start):
                start += len(lines)
                if MARK in lines:
                    self._take(lines)
            self._at[segment.name] = start

    def _take(self, lines: bytes) -> None:
        decided = dict(self.decided)
        for line in lines.split(b"\n"):
            record = orjson.loads(line) if MARK in line else {}
            if record.get("schema") == Review.schema_id:
                evidence_id = record["evidence_id"]
                one = Decided(record["review_id"], record["ts"], record["by"], record["decision"])
                decided[evidence_id] = (*decided.get(evidence_id, ()), one)
        self.decided = decided


def ends_of(manifest: EvidenceManifest | None) -> dict[str, int]:
    """How far into each segment of the own log the evidence goes."""
    ends: dict[str, int] = {}
    for shard in manifest.shards if manifest else ():
        if shard.kind == OWN:
            ends[shard.segment] = max(shard.end, ends.get(shard.segment, 0))
    return ends


def _whole_lines(segment: SegmentView, start: int) -> Iterator[bytes]:
    """What lies in a segment from `start` on, many lines at a time."""
    if start >= segment.end:
        return
    with segment.path.open("rb", buffering=0) as file:
        file.seek(start)
        left, rest = segment.end - start, b""
        while left > 0 and (block := file.read(min(BLOCK_BYTES, left))):
            left -= len(block)
            whole, feed, rest = (rest + block).rpartition(b"\n")
            if feed:
                yield whole + feed
