"""The log: sealed segments hold to their seals, and every part that a stage read is still what it was."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import orjson
from pydantic import ValidationError

from distill.engine.audit.hashing import OnBytes, parts_of
from distill.engine.audit.history import Readings
from distill.engine.audit.products import inside
from distill.engine.audit.report import Report
from distill.engine.places import LOG
from distill.engine.segments import SEGMENT, SegmentName, read_lines
from schemas.evidence import SegmentManifest

SIDE: Final = re.compile(r"\.lock|runs-(?:[a-z0-9]{1,16}-)?[0-9]{6,}\.jsonl\.torn-[0-9]+(?:-[0-9]+)?")

Locate = Callable[[str], None]


def check_sources(
    data: Path, read: Mapping[str, Readings], report: Report, on_bytes: OnBytes, locate: Locate
) -> None:
    """Hold every file that stages read against what they say they read."""
    for uri, one in sorted(read.items()):
        report.checked["sources"] += 1
        path = Path(uri) if Path(uri).is_absolute() else inside(data, uri)
        try:
            if path is None or _check_parts(path, uri, one, report, on_bytes):
                locate(uri)
        except FileNotFoundError:
            if uri.startswith(f"{LOG}/"):
                report.find("segment_missing", uri, "stages have read it", expected=f"{one.end} bytes")
            else:
                report.skip("source_missing", uri, "the imported file is not there any more")


def _check_parts(path: Path, uri: str, one: Readings, report: Report, on_bytes: OnBytes) -> bool:
    """Whether something differs."""
    differs, size = False, path.stat().st_size
    if size < one.end:
        report.find(
            "segment_truncated" if uri.startswith(f"{LOG}/") else "source_truncated",
            uri,
            "it is shorter than what was read of it",
            offset=size,
            expected=f"{one.end} bytes",
            found=f"{size} bytes",
        )
        differs = True
    ends: defaultdict[int, list[int]] = defaultdict(list)
    for start, end in one.parts:
        ends[start].append(end)
    for start, wanted in ends.items():
        for end, found in parts_of(path, start, wanted, on_bytes).items():
            where = f"bytes {start} to {end}"
            for (sha256, lines), sequence in one.parts[start, end].items():
                if (sha256, lines) != (found.sha256, found.lines):
                    report.find(
                        "segment_differs" if uri.startswith(f"{LOG}/") else "source_differs",
                        uri,
                        f"{where} are not those that receipt {sequence} read",
                        offset=start,
                        expected=sha256,
                        found=found.sha256,
                    )
                    differs = True
    return differs


# --- seals ------------------------------------------------------------------------------------


def check_seals(data: Path, read: Mapping[str, Readings], report: Report, on_bytes: OnBytes) -> None:
    """Sealed segments, the row of their numbers, and what nobody has vouched for yet."""
    folder = data / LOG
    names = _segments(folder)
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for name in names:
        rows[name.writer].append(name.number)
    for writer, numbers in rows.items():
        for number in sorted(set(range(1, max(numbers))) - set(numbers)):
            missing = SegmentName(writer, number)
            report.find("segment_missing", f"{LOG}/{missing}", "later segments of this writer are there")
    for name in names:
        report.checked["segments"] += 1
        sealed = (folder / name.manifest).exists()
        if sealed:
            _check_seal(folder, name, report, on_bytes)
        elif name.number != max(rows[name.writer]):
            report.find("seal_missing", f"{LOG}/{name.manifest}", f"{name} has a successor, so it was sealed")
        _check_rest(folder, name, read.get(f"{LOG}/{name}", Readings()).end, report, sealed=sealed)
    _check_company(folder, names, report)


def _segments(folder: Path) -> list[SegmentName]:
    found = (SEGMENT.fullmatch(path.name) for path in (folder.iterdir() if folder.is_dir() else ()))
    return sorted(SegmentName(match[1] or "", int(match[2])) for match in found if match)


def _check_seal(folder: Path, name: SegmentName, report: Report, on_bytes: OnBytes) -> None:
    at = f"{LOG}/{name.manifest}"
    try:
        seal = SegmentManifest.model_validate_json((folder / name.manifest).read_bytes())
    except ValidationError as error:
        report.find("seal_invalid", at, f"the manifest cannot be read: {error.error_count()} errors")
        return
    size = (folder / str(name)).stat().st_size
    found = parts_of(folder / str(name), 0, [size], on_bytes)[size]
    expected = (seal.segment, seal.sha256, seal.lines, seal.bytes)
    actual = (str(name), found.sha256, found.lines, found.bytes)
    if expected != actual:
        report.find(
            "seal_differs", f"{LOG}/{name}", f"it is not what {at} sealed", expected=expected, found=actual
        )


def _check_rest(folder: Path, name: SegmentName, start: int, report: Report, *, sealed: bool) -> None:
    """Lines that came after the last `materialize`: nothing is signed of them, but they must be records."""
    path = folder / str(name)
    if path.stat().st_size <= start:
        return
    at = f"{LOG}/{name}"
    for line in read_lines(path, start):
        if not line.data.endswith(b"\n"):
            if sealed:
                return  # the seal has said so
            report.skip("tail_unfinished", at, f"the line at offset {line.offset} is being written")
        elif not _is_record(line.data):
            report.find("line_invalid", at, "this line is not a record", offset=line.offset)
        report.checked["lines_not_yet_read"] += 1


def _is_record(data: bytes) -> bool:
    try:
        record = orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return isinstance(record, dict) and isinstance(record.get("schema"), str)


def _check_company(folder: Path, names: list[SegmentName], report: Report) -> None:
    known = {str(name) for name in names} | {name.manifest for name in names}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        temporary = path.name.startswith(".") and path.name != ".lock"
        if path.name not in known and not SIDE.fullmatch(path.name) and not temporary:
            report.find("file_unexpected", f"{LOG}/{path.name}", "nothing of the log has such a name")
