"""A collection in one zip file: written as it is read, and trusted in nothing when it is read back.

`points-NNNNNN.jsonl` has a line for each point (`id`, `role`, `text`, `payload`), `vectors-NNNNNN.f32` their
vectors as little-endian float32, in the same order. `manifest.json` says what the collection is, and the size
and sha256 of every other member; its own sha256 so stands for the whole.
"""

import hashlib
import re
import stat
import sys
import zipfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Annotated, Final, Literal, Self

import orjson
from pydantic import Field, ValidationError

from schemas.base import JsonObject, Model, Timestamp
from schemas.vectors import CollectionName, CollectionSpec, PointId
from services.errors import InvalidRequest, PlatformError
from vectord.backends import Record
from vectord.engine.disk import Manifest
from vectord.engine.limits import Limits, check_payload, check_text, checked_vector
from vectord.engine.roles import normal_form

MANIFEST: Final = "manifest.json"
MEMBER_NAME: Final = re.compile(r"manifest\.json|points-[0-9]{6}\.jsonl|vectors-[0-9]{6}\.f32")
MANIFEST_BYTES_MAX: Final = 32 * 1024 * 1024
PART_BYTES: Final = 8 * 1024 * 1024
"""A member is closed when it has grown to this."""
MEMBER_BYTES_MAX: Final = 64 * 1024 * 1024
MEMBERS_MAX: Final = 200_000
READ_BYTES: Final = 1024 * 1024
FLOAT_BYTES: Final = 4


class SnapshotBroken(InvalidRequest):
    """The file is no snapshot, or not the one that was written."""

    code = "snapshot_broken"


class Member(Model):
    name: Annotated[str, Field(pattern=r"^(points-[0-9]{6}\.jsonl|vectors-[0-9]{6}\.f32)$")]
    bytes: Annotated[int, Field(ge=0, le=MEMBER_BYTES_MAX)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Contents(Model):
    """What `manifest.json` says."""

    format: Literal["stillhouse.snapshot.v1"] = "stillhouse.snapshot.v1"
    collection: CollectionName
    created: Timestamp
    spec: CollectionSpec
    dimension: Annotated[int, Field(ge=1)]
    model_digest: str | None
    points: Annotated[int, Field(ge=0)]
    members: Annotated[list[Member], Field(max_length=MEMBERS_MAX)]


class Line(Model):
    """A point without its vector."""

    id: PointId
    role: str | None = None
    text: str | None = None
    payload: JsonObject = Field(default_factory=dict)


def float32(vector: Sequence[float]) -> bytes:
    """The vector as little-endian float32."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def numbers_of(raw: bytes) -> "array[float]":
    numbers = array("f", raw)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


class Writer:
    """Puts points into a zip file that is open for writing."""

    def __init__(self, file: IO[bytes]) -> None:
        self._zip = zipfile.ZipFile(file, "w", allowZip64=True)
        self._lines: list[bytes] = []
        self._vectors: list[bytes] = []
        self._held = 0
        self._parts = 0
        self._members: list[Member] = []
        self.points = 0

    def add(self, records: Sequence[Record]) -> None:
        for record in records:
            point = {"id": record.id, "role": record.role, "text": record.text, "payload": record.payload}
            line = orjson.dumps(point, option=orjson.OPT_APPEND_NEWLINE)
            vector = float32(record.vector)
            self._lines.append(line)
            self._vectors.append(vector)
            self._held += max(len(line), len(vector))
            if self._held >= PART_BYTES:
                self._write_part()
        self.points += len(records)

    def finish(self, collection: str, manifest: Manifest, created: Timestamp) -> Contents:
        """Write what is left, and the manifest."""
        self._write_part()
        contents = Contents(
            collection=collection,
            created=created,
            spec=manifest.spec,
            dimension=manifest.dimension,
            model_digest=manifest.model_digest,
            points=self.points,
            members=self._members,
        )
        self._zip.writestr(MANIFEST, contents.model_dump_json())
        self._zip.close()
        return contents

    def _write_part(self) -> None:
        if not self._lines:
            return
        self._write(f"points-{self._parts:06}.jsonl", b"".join(self._lines), zipfile.ZIP_DEFLATED)
        self._write(f"vectors-{self._parts:06}.f32", b"".join(self._vectors), zipfile.ZIP_STORED)
        self._parts += 1
        self._lines, self._vectors, self._held = [], [], 0

    def _write(self, name: str, content: bytes, method: int) -> None:
        self._zip.writestr(zipfile.ZipInfo(name), content, compress_type=method, compresslevel=1)
        self._members.append(
            Member(name=name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        )


class Reader:
    """A snapshot, open for reading; a context manager. Whatever is not as written is `SnapshotBroken`."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._limits = limits
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise SnapshotBroken(f"this is no whole zip file: {error}") from error
        try:
            self._infos = self._listed()
            raw = self._read(MANIFEST, MANIFEST_BYTES_MAX)
            self.sha256 = hashlib.sha256(raw).hexdigest()
            self.contents = self._contents(raw)
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def check_members(self) -> None:
        """Raise unless the file holds what the manifest says, no more and no less, of a size that may be."""
        members = self.contents.members
        names = [member.name for member in members]
        if sorted([*names, MANIFEST]) != sorted(self._infos):
            raise SnapshotBroken("the members of the file are not those that its manifest names")
        total = sum(member.bytes for member in members)
        if total > self._limits.snapshot_bytes_max:
            raise SnapshotBroken(
                f"it holds {total} bytes; at most {self._limits.snapshot_bytes_max} are unpacked",
                code="snapshot_too_large",
            )
        for member in members:
            if self._infos[member.name].file_size != member.bytes:
                raise SnapshotBroken(f"{member.name} has another size than its manifest says")

    def records(self) -> Iterator[list[Record]]:
        """The points, part by part, each checked against its sha256 and the rules that points obey."""
        by_name = {member.name: member for member in self.contents.members}
        for lines in sorted(name for name in by_name if name.endswith(".jsonl")):
            vectors = lines.replace("points-", "vectors-").replace(".jsonl", ".f32")
            if vectors not in by_name:
                raise SnapshotBroken(f"{lines} has no {vectors}")
            raw = self._verified(by_name[vectors])
            points = self._verified(by_name[lines]).splitlines()
            width = FLOAT_BYTES * self.contents.dimension
            if len(raw) != width * len(points):
                raise SnapshotBroken(f"{vectors} does not hold {len(points)} vectors")
            yield [
                self._record(line, raw[width * number : width * (number + 1)], f"{lines}.{number}")
                for number, line in enumerate(points)
            ]

    def _listed(self) -> dict[str, zipfile.ZipInfo]:
        """The members by name, when each is a plain file with a name that a snapshot has."""
        found: dict[str, zipfile.ZipInfo] = {}
        for info in self._zip.infolist():
            if len(found) > MEMBERS_MAX:
                raise SnapshotBroken(f"it has more than {MEMBERS_MAX} members")
            if not MEMBER_NAME.fullmatch(info.filename) or info.filename in found:
                raise SnapshotBroken(f"{info.filename[:100]!r} does not belong in a snapshot")
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG) or info.flag_bits & 1:
                raise SnapshotBroken(f"{info.filename} is not a plain file")
            found[info.filename] = info
        if MANIFEST not in found:
            raise SnapshotBroken(f"it has no {MANIFEST}")
        return found

    def _contents(self, raw: bytes) -> Contents:
        try:
            return Contents.model_validate_json(raw)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise SnapshotBroken(f"its manifest is not one of ours: {place}: {first['msg']}") from error

    def _verified(self, member: Member) -> bytes:
        content = self._read(member.name, member.bytes)
        if len(content) != member.bytes or hashlib.sha256(content).hexdigest() != member.sha256:
            raise SnapshotBroken(f"{member.name} is not what was written: its sha256 differs")
        return content

    def _read(self, name: str, bytes_max: int) -> bytes:
        """A member, of which no more is unpacked than may be."""
        try:
            with self._zip.open(self._infos[name]) as file:
                content = file.read(bytes_max + 1)
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
            raise SnapshotBroken(f"{name} cannot be read: {error}") from error
        if len(content) > bytes_max:
            raise SnapshotBroken(f"{name} is larger than it says")
        return content

    def _record(self, raw: bytes, vector: bytes, place: str) -> Record:
        spec, dimension = self.contents.spec, self.contents.dimension
        try:
            line = Line.model_validate_json(raw)
            numbers = checked_vector(numbers_of(vector), dimension, spec.distance, param="vector")
            if line.text is not None:
                check_text(line.text, self._limits, param="text")
            check_payload(dict(line.payload), self._limits, param="payload")
        except (ValidationError, PlatformError) as error:
            raise SnapshotBroken(f"{place} is no point of this collection: {error}") from error
        role_key = normal_form(line.role) if line.role is not None else None
        if spec.gated and not role_key:
            raise SnapshotBroken(f"{place} has no role, and the collection is gated")
        return Record(line.id, numbers, line.text, line.role, role_key, line.payload)
