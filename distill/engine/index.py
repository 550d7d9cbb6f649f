"""Where each record lies in the log, with a digest of it: enough to find it, or to know it again."""

import hashlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from schemas.runs import Feedback, Run, VerdictRecord

Outcome = Literal["appended", "repeated", "run_id_conflict", "notes_full"]

PACKED: Final = struct.Struct(">IQI16s")
DIGEST_BYTES: Final = 16

NOTES: Final = (VerdictRecord.schema_id, Feedback.schema_id)


@dataclass(frozen=True, slots=True)
class Owner:
    """What a record belongs to: the run or the episode of this id."""

    scope: Literal["run", "episode"]
    id: str

    @property
    def key(self) -> str:
        return f"{self.scope}:{self.id}"


@dataclass(frozen=True, slots=True)
class Location:
    """Bytes of the log: the segment's place in the row, and the line in it."""

    segment: int
    offset: int
    length: int
    digest: bytes

    def pack(self) -> bytes:
        return PACKED.pack(self.segment, self.offset, self.length, self.digest)

    @classmethod
    def unpack(cls, packed: bytes) -> "Location":
        return cls(*PACKED.unpack(packed))


@dataclass(frozen=True, slots=True)
class Entry:
    """A record on its way into the log, as its final line."""

    schema: str
    owner: Owner
    line: bytes
    digest: bytes


def digest_of(line: bytes) -> bytes:
    """Lines are canonical, so equal content is equal bytes."""
    return hashlib.sha256(line).digest()[:DIGEST_BYTES]


def owner_of(record: Mapping[str, Any]) -> Owner | None:
    """What a record belongs to, or None for a record of a kind that is not indexed."""
    if record.get("schema") not in (Run.schema_id, *NOTES):
        return None
    if isinstance(run_id := record.get("run_id"), str):
        return Owner("run", run_id)
    if isinstance(episode_id := record.get("episode_id"), str):
        return Owner("episode", episode_id)
    return None


class Index:
    """Runs by id; verdicts and feedback (notes) by what they belong to.

    A run costs about 200 bytes of memory, the first note on it 300, each further one 100.
    """

    def __init__(self, *, notes_max: int) -> None:
        self._runs: dict[str, bytes] = {}
        self._notes: dict[str, list[bytes]] = {}
        self._notes_max = notes_max

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, schema: str, owner: Owner, location: Location) -> None:
        """Remember a record. Of two runs with one id the first counts."""
        if schema == Run.schema_id:
            self._runs.setdefault(owner.id, location.pack())
        else:
            self._notes.setdefault(owner.key, []).append(location.pack())

    def run(self, run_id: str) -> Location | None:
        packed = self._runs.get(run_id)
        return Location.unpack(packed) if packed else None

    def notes(self, owner: Owner) -> Iterator[Location]:
        """What was said of `owner`, in the order of the log."""
        return (Location.unpack(packed) for packed in self._notes.get(owner.key, ()))

    def judge(self, entry: Entry, staged: "Staged") -> Outcome:
        """What becomes of an entry, given the log and what is about to be written."""
        return (
            self._judge_run(entry, staged)
            if entry.schema == Run.schema_id
            else self._judge_note(entry, staged)
        )

    def _judge_run(self, entry: Entry, staged: "Staged") -> Outcome:
        digest = entry.digest
        known = self.run(entry.owner.id)
        known_digest = known.digest if known else staged.runs.get(entry.owner.id)
        if known_digest is None:
            staged.runs[entry.owner.id] = digest
            return "appended"
        return "repeated" if known_digest == digest else "run_id_conflict"

    def _judge_note(self, entry: Entry, staged: "Staged") -> Outcome:
        digest = entry.digest
        others = staged.notes.setdefault(entry.owner.key, [])
        known = [location.digest for location in self.notes(entry.owner)]
        if digest in known or digest in others:
            return "repeated"
        if len(known) + len(others) >= self._notes_max:
            return "notes_full"
        others.append(digest)
        return "appended"


class Staged:
    """What the group that is being put together will add to the log."""

    def __init__(self) -> None:
        self.runs: dict[str, bytes] = {}
        self.notes: dict[str, list[bytes]] = {}
