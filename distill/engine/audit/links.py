"""Provenance: from an exported row, and from evidence, back to the raw bytes and to the id that they give."""

import hashlib
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from distill.engine.audit.identify import evidence_id_of_content, evidence_id_of_line
from distill.engine.audit.report import Report, numbered
from distill.engine.openfiles import OpenFiles
from distill.engine.places import IMPORTS, LOG
from distill.engine.segments import LINE_BYTES_MAX
from schemas.evidence import Evidence

PROVENANCE: Final = ".provenance.jsonl"

Json = dict[str, Any]


def segment_of(uri: str) -> str:
    """What evidence calls a file that receipts call `uri`."""
    return uri.removeprefix(f"{LOG}/").removeprefix(f"{IMPORTS}/")


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which lines of a file are followed: `size` of them, drawn with `seed`, or all when it is None.

    All lines of files that differ are, to tell where.
    """

    size: int | None
    seed: int
    differing: frozenset[str]

    def of(self, name: str, provenance: str, lines: int) -> frozenset[int] | None:
        """Line numbers from 1, or None for all."""
        if self.size is None or lines <= self.size or not self.differing.isdisjoint((name, provenance)):
            return None
        drawn = random.Random(f"{self.seed}:{name}")  # noqa: S311 - a sample that can be drawn again
        return frozenset(drawn.sample(range(1, lines + 1), self.size))


class Links:
    """Follows links and reports those that lead nowhere, or elsewhere.

    `uris` are the files that some stage says it read, and `raw` is what they are read with.
    """

    def __init__(self, data: Path, uris: Sequence[str], raw: OpenFiles, report: Report) -> None:
        self._data = data
        self._uris = {segment_of(uri): uri for uri in uris}
        self._raw = raw
        self._report = report

    # --- whole files --------------------------------------------------------------------------

    def check_rows(self, name: str, provenance: str, chosen: frozenset[int] | None) -> None:
        """Hold the rows of a dataset file against their provenance, and follow the chosen ones."""
        rows, links = 0, 0
        with ExitStack() as stack:
            lines = numbered(stack.enter_context((self._data / name).open("rb")))
            for links, link in numbered(stack.enter_context((self._data / provenance).open("rb"))):
                rows, row = next(lines, (rows, b""))
                if chosen is None or links in chosen:
                    self._check_row(name, provenance, links, row, link)
            rows = max([rows, *(number for number, _ in lines)])
        if rows != links:
            self._report.find(
                "provenance_count",
                provenance,
                f"{name} does not have a line for each of its own",
                expected=rows,
                found=links,
            )

    def check_sources(self, name: str, chosen: frozenset[int] | None) -> None:
        """Follow the chosen lines of evidence or of a quarantine back to the raw bytes."""
        with (self._data / name).open("rb") as file:
            for number, line in numbered(file):
                if chosen is None or number in chosen:
                    record = self._parsed(name, number, line)
                    if record is not None:
                        self._follow(name, number, record.get("evidence_id"), record.get("source"))
                        if record.get("schema") == Evidence.schema_id:
                            self._check_content(name, number, record)

    def _check_content(self, name: str, number: int, record: Json) -> None:
        """Evidence must be what its id says, whoever signed it: caches between stages are not signed."""
        try:
            made: str | None = evidence_id_of_content(record)
        except ValueError:
            made = None
        if made != record.get("evidence_id"):
            self._report.find(
                "evidence_differs",
                name,
                "its content gives another evidence id",
                line=number,
                expected=record.get("evidence_id"),
                found=made or "none",
            )

    # --- single links -------------------------------------------------------------------------

    def _check_row(self, name: str, provenance: str, number: int, row: bytes, link: bytes) -> None:
        record = self._parsed(provenance, number, link)
        if record is None:
            return
        found = hashlib.sha256(row).hexdigest()
        if record.get("line") != number:
            self._report.find(
                "provenance_misplaced",
                provenance,
                "it speaks of another line",
                line=number,
                expected=number,
                found=record.get("line"),
            )
        elif record.get("line_sha256") != found:
            self._report.find(
                "row_differs",
                name,
                "the row is not the one that its provenance speaks of",
                line=number,
                expected=record.get("line_sha256"),
                found=found,
            )
        self._follow(provenance, number, record.get("evidence_id"), record.get("source"))
        if isinstance(other := record.get("rejected"), dict):
            self._follow(provenance, number, other.get("evidence_id"), other.get("source"))

    def _parsed(self, name: str, number: int, line: bytes) -> Json | None:
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            record = None
        if not isinstance(record, dict):
            self._report.find("line_invalid", name, "this line is not a record", line=number)
            return None
        return record

    def _follow(self, name: str, number: int, evidence_id: object, source: object) -> None:
        self._report.checked["links"] += 1
        match source:
            case {
                "kind": str(kind),
                "segment": str(segment),
                "offset": int(offset),
                "length": int(length),
                "line_sha256": str(sha256),
            } if offset >= 0 and length >= 0:
                self._compare(name, number, _Link(kind, segment, offset, length, sha256), evidence_id)
            case _:
                self._report.find("link_invalid", name, "this line names no source", line=number)

    def _compare(self, name: str, number: int, link: "_Link", evidence_id: object) -> None:
        at = self._uris.get(link.segment)
        if at is None:
            self._report.find(
                "link_unvouched",
                name,
                "no stage says that it read a file of this name",
                line=number,
                found=link.segment,
            )
            return
        try:
            raw = self._raw.read(self._data / at, link.offset, min(link.length, LINE_BYTES_MAX))
        except FileNotFoundError:
            return  # said of the file itself, once: links into it cannot be followed
        found = hashlib.sha256(raw).hexdigest()
        if found != link.sha256:
            self._report.find(
                "link_broken",
                name,
                f"the {link.length} bytes at offset {link.offset} of {at} are others",
                line=number,
                offset=link.offset,
                expected=link.sha256,
                found=found,
            )
        elif evidence_id is not None:
            self._check_id(name, number, link, raw, evidence_id)

    def _check_id(self, name: str, number: int, link: "_Link", raw: bytes, evidence_id: object) -> None:
        try:
            made: str | None = evidence_id_of_line(link.kind, raw)
        except ValueError:
            made = None
        if made != evidence_id:
            self._report.find(
                "evidence_id_differs",
                name,
                "the raw bytes give another evidence id",
                line=number,
                offset=link.offset,
                expected=made or "none",
                found=evidence_id,
            )


@dataclass(frozen=True, slots=True)
class _Link:
    kind: str
    segment: str
    offset: int
    length: int
    sha256: str


# --- where a difference lies --------------------------------------------------------------------


def locate_in_log(data: Path, uri: str, evidence: Sequence[str], report: Report) -> None:
    """Name the lines of a source that are not what evidence and quarantine were made of."""
    segment = segment_of(uri)
    path = Path(uri) if Path(uri).is_absolute() else data / uri
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        for source in _sources_in(data, evidence, segment):
            raw = os.pread(descriptor, source["length"], source["offset"])
            found = hashlib.sha256(raw).hexdigest()
            if found != source["line_sha256"]:
                report.find(
                    "line_differs",
                    uri,
                    "this line is not the one that evidence was made of",
                    offset=source["offset"],
                    expected=source["line_sha256"],
                    found=found,
                )
    finally:
        os.close(descriptor)


def _sources_in(data: Path, evidence: Sequence[str], segment: str) -> Iterator[Json]:
    found: list[Json] = []
    for name in evidence:
        for line in _lines(data / name):
            if segment.encode() not in line:
                continue
            source = _parse(line).get("source")
            if isinstance(source, dict) and source.get("segment") == segment:
                found.append({key: source[key] for key in ("offset", "length", "line_sha256")})
    yield from sorted(found, key=lambda source: int(source["offset"]))


def locate_in_product(data: Path, name: str, report: Report) -> None:
    """Name the first lines of a product that cannot be what was written: broken, or out of order."""
    previous = ""
    for number, line in numbered(_lines(data / name)):
        record = _parse(line)
        evidence_id = str(record.get("evidence_id") or "")
        problem = None
        if not record:
            problem = "this line is not a record"
        elif evidence_id and evidence_id <= previous and "line" not in record:
            problem = "this line is out of order"
        if problem:
            report.find("line_invalid", name, problem, line=number)
        previous = evidence_id or previous


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except FileNotFoundError:
        return


def _parse(line: bytes) -> Json:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return record if isinstance(record, dict) else {}
