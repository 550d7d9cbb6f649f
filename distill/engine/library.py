"""Evidence and categories as the stages left them: shard by shard and in step, or by id."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson

from distill.engine import columns, lookup, shards, words
from distill.engine.lookup import Found, Lookup
from distill.engine.openfiles import OpenFiles
from distill.engine.products import id_of, line_with, lines_from
from distill.engine.shards import EvidenceManifest, EvidenceShard, ScoredManifest
from schemas.evidence import Category, Scored
from services.errors import Conflict

CHAIN_MAX: Final = 64
"""Attempts that one repaired answer may go back over."""

Answer = TypeVar("Answer")


class Item:
    """One piece of evidence with its category: the lines as they lie on the disk, parsed when asked for."""

    def __init__(self, evidence_line: bytes, scored_line: Callable[[], bytes]) -> None:
        self.evidence_line = evidence_line
        self._find_scored = scored_line

    @cached_property
    def scored_line(self) -> bytes:
        """The category's line. Raises `Conflict` when score is behind."""
        return self._find_scored()

    @cached_property
    def evidence(self) -> dict[str, Any]:
        """`stillhouse.evidence` as JSON; `schemas.evidence.Evidence` says what is in it."""
        parsed: dict[str, Any] = orjson.loads(self.evidence_line)
        return parsed

    @cached_property
    def scored(self) -> dict[str, Any]:
        """`stillhouse.scored` as JSON."""
        parsed: dict[str, Any] = orjson.loads(self.scored_line)
        return parsed

    @property
    def id(self) -> str:
        return id_of(self.evidence_line)

    @property
    def category(self) -> Category:
        category: Category = self.scored["category"]
        return category

    @property
    def reasons(self) -> list[str]:
        reasons: list[str] = self.scored["reasons"]
        return reasons


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of the evidence that is worked on by itself: some thousand pieces, sorted by id.

    `name` is the same for the same place in the log, and sorts as the log does.
    """

    name: str
    evidence: Path
    scored: Path
    lines: int
    bytes: int

    def read(self) -> Iterator[Item]:
        """What is in it, in the order of ids. Raises `Conflict` when score is behind."""
        scored = lines_from(self.scored)
        for line in lines_from(self.evidence):
            other = next(scored, None)
            if other is None or id_of(other) != id_of(line):
                raise _stale()
            yield Item(line, partial(_given, other))
        if next(scored, None) is not None:
            raise _stale()


class Library:
    """What lies in `data/distill`, as of the moment when it is first asked for. Everything here blocks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder.parent
        self._files = OpenFiles()

    @cached_property
    def evidence_manifest(self) -> EvidenceManifest | None:
        return shards.evidence_manifest(self._folder)

    @cached_property
    def scored_manifest(self) -> ScoredManifest | None:
        return shards.scored_manifest(self._folder)

    @cached_property
    def lookup(self) -> Lookup | None:
        """Where each id is; None when there is no evidence yet."""
        manifest = self.evidence_manifest
        return Lookup(lookup.table_of(self._folder, manifest)) if manifest else None

    # --- for stages ---------------------------------------------------------------------------

    def require(self) -> None:
        """Raise `Conflict` naming the stage that has to run before."""
        for manifest, stage in ((self.evidence_manifest, "materialize"), (self.scored_manifest, "score")):
            if manifest is None:
                raise Conflict(f"run the stage `{stage}` first", code="stage_missing")
        self.shards()

    def hashes(self) -> tuple[str, str]:
        """One sha256 over all shards of evidence, and one over all of categories."""
        evidence, scored = self._manifests()
        return (
            shards.digest_of([shard.evidence for shard in evidence.shards]),
            shards.digest_of([shard.scored for shard in scored.shards]),
        )

    def versions(self) -> tuple[str, str]:
        """Those of the scorer and of the rules that it applied."""
        _, scored = self._manifests()
        return scored.scorer_version, scored.policy_version

    def shards(self) -> list[Shard]:
        """The shards in the order of the log. Raises `Conflict` when score is behind."""
        evidence, scored = self._manifests()
        made_from = [shard.evidence_sha256 for shard in scored.shards]
        if made_from != [shard.evidence.sha256 for shard in evidence.shards]:
            raise _stale()
        return [
            Shard(
                one.name,
                self._data / one.evidence.name,
                self._data / other.scored.name,
                one.evidence.lines,
                one.evidence.bytes,
            )
            for one, other in zip(evidence.shards, scored.shards, strict=True)
        ]

    def has(self, evidence_id: str) -> bool:
        """Whether there is evidence of this id."""
        return self._find(evidence_id) is not None

    def item(self, evidence_id: str) -> Item | None:
        """The piece with this id, in whichever shard it is."""
        found = self._find(evidence_id)
        return Item(self.evidence_line(found), partial(self._scored, found)) if found is not None else None

    def lines_of(self, evidence_id: str) -> tuple[bytes | None, bytes | None]:
        """The lines of a piece and of its category, each where there is one."""
        found = self._find(evidence_id)
        return (self.evidence_line(found), self.scored_line(found)) if found is not None else (None, None)

    def first(self, item: Item) -> Item | None:
        """The attempt that a chain of repairs began with, or None when it cannot be followed to there."""
        current: Item | None = item
        for _ in range(CHAIN_MAX):
            if current is None:
                return None
            before = current.evidence.get("repair_of")
            if before is None:
                return current
            current = self.item(before)
        return None

    def _find(self, evidence_id: str) -> Found | None:
        return self.lookup.find(bytes.fromhex(evidence_id)) if self.lookup is not None else None

    def _manifests(self) -> tuple[EvidenceManifest, ScoredManifest]:
        evidence, scored = self.evidence_manifest, self.scored_manifest
        if evidence is None or scored is None:
            raise _stale()
        return evidence, scored

    # --- lines --------------------------------------------------------------------------------

    @property
    def index(self) -> Path:
        """The folder of what can be made again."""
        return self._folder / shards.INDEX

    def columns_of(self, shard: EvidenceShard) -> Path | None:
        """Where the columns of a shard lie, if it was scored."""
        scored = self.scored_file(shard)
        return columns.path_of(self.index, scored) if scored is not None else None

    def rows_with(self, shard: EvidenceShard, asked: Sequence[str]) -> words.Rows | None:
        """The rows of a shard that may have words; None where no index tells."""
        scored = self.scored_file(shard)
        return words.rows_with(words.path_of(self.index, scored), asked) if scored is not None else None

    def found_at(self, shard: int, row: int) -> Found:
        """The line that is the `row`-th of a shard, by the shard's place in the manifest."""
        assert self.evidence_manifest is not None
        path = lookup.ids_of(self.index, self.evidence_manifest.shards[shard])
        entry = self._files.read(path, row * lookup.ENTRY.itemsize, lookup.ENTRY.itemsize)
        return replace(lookup.found_in(entry), shard=shard)

    def evidence_line(self, found: Found) -> bytes:
        """The line of a piece of evidence."""
        assert self.evidence_manifest is not None
        path = self._data / self.evidence_manifest.shards[found.shard].evidence.name
        return self._files.read(path, found.offset, found.length)

    def _scored(self, found: Found) -> bytes:
        line = self.scored_line(found)
        if line is None:
            raise _stale()
        return line

    def scored_line(self, found: Found) -> bytes | None:
        """The category's line, when there is one of this very evidence."""
        assert self.evidence_manifest is not None
        path = self.scored_file(self.evidence_manifest.shards[found.shard])
        return line_with(path, found.id.hex()) if path is not None else None

    def scored_file(self, shard: EvidenceShard) -> Path | None:
        """Where the categories of this very evidence lie, if it was scored."""
        return self._scored_files.get((shard.name, shard.evidence.sha256))

    @cached_property
    def _scored_files(self) -> dict[tuple[str, str], Path]:
        """Where the categories of a shard lie, by its name and content."""
        scored = self.scored_manifest
        return {
            (shard.name, shard.evidence_sha256): self._data / shard.scored.name
            for shard in (scored.shards if scored else ())
        }

    # --- for lists ----------------------------------------------------------------------------

    def category_of(self, evidence_id: str) -> Category | None:
        found = self._find(evidence_id)
        line = self.scored_line(found) if found is not None else None
        return Scored.model_validate_json(line).category if line is not None else None


@lru_cache(maxsize=1)
def opened(folder: Path, _stamp: str) -> Library:
    """The library of this process in a state that `_stamp` tells from others.

    For who works on one shard of many: the library is opened once a run, not once a shard.
    """
    return Library(folder)


def reading(folder: Path, ask: Callable[[Library], Answer]) -> Answer:
    """Ask a library; once again if a stage took its files away meanwhile."""
    try:
        return ask(Library(folder))
    except FileNotFoundError:
        return ask(Library(folder))


def _given(line: bytes) -> bytes:
    return line


def _stale() -> Conflict:
    return Conflict(
        "the categories are not those of this evidence; run the stage `score` again", code="stage_stale"
    )
