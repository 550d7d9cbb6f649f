"""Evidence by what it is, by what it belongs to, and by words: as much of it as one page needs.

Columns and words narrow the question down to candidates, in the order of ids; the lines of these are then
read and checked in full, so that a shard without an index gives the same answer, at more of a page's work.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from distill.engine import columns, words
from distill.engine.columns import CATEGORIES, UNDATED, Columns, Table
from distill.engine.library import Library
from distill.engine.lookup import ENTRY, Found, ids_of
from distill.engine.partindex import Halves, Key, PartIndex, halves_of, key_of
from distill.engine.shards import EvidenceShard
from distill.engine.times import microseconds, moment
from schemas.distill import EvidenceItem, EvidencePage
from schemas.evidence import Category, Evidence, Scored

Json = Mapping[str, Any]
Flags = NDArray[np.bool_]

BELONGING: Final = ("episode_id", "run_id")
"""What few pieces share; these are found by key."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for; all of it has to hold. `code` is a reason of the category or a finding, `words` are
    how words in the input or the output begin, in whatever case. `model` is the name alone, or with its
    provider.
    """

    category: Category | None = None
    role: str | None = None
    kind: str | None = None
    code: str | None = None
    model: str | None = None
    episode_id: str | None = None
    run_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    words: tuple[str, ...] = ()

    @property
    def by_belonging(self) -> bool:
        return self.episode_id is not None or self.run_id is not None

    @property
    def by_index(self) -> bool:
        """Whether columns or words can tell some of what does not fit."""
        return any(
            getattr(self, field.name) not in (None, ())
            for field in fields(self)
            if field.name not in BELONGING
        )

    # --- a line -------------------------------------------------------------------------------

    def may_fit(self, line: bytes) -> bool:
        """False only for what certainly lacks one of the words; much faster than reading the line."""
        if not self.words:
            return True
        text = line.decode().casefold()
        return all(orjson.dumps(word.casefold())[1:-1].decode() in text for word in self.words)

    def fits(self, evidence: Json, scored: Json | None) -> bool:
        """Whether a piece is what is looked for."""
        task = evidence["task"] or {}
        return (
            self.category in (None, scored["category"] if scored else None)
            and self.role in (None, evidence["role"])
            and self.kind in (None, task.get("kind"))
            and self.episode_id in (None, evidence["episode_id"])
            and self.run_id in (None, evidence["source"]["key"])
            and self.model in (None, evidence["model"]["name"], _model(evidence))
            and self._code_fits(evidence, scored)
            and self._time_fits(evidence["ts"])
            and self._words_fit(evidence)
        )

    def _code_fits(self, evidence: Json, scored: Json | None) -> bool:
        if self.code is None:
            return True
        findings = (evidence["verdict"] or {}).get("findings", ())
        reasons = scored["reasons"] if scored else ()
        return self.code in reasons or any(one["code"] == self.code for one in findings)

    def _time_fits(self, ts: str | None) -> bool:
        if self.since is None and self.until is None:
            return True
        if ts is None:
            return False
        when = moment(ts)
        return (self.since is None or when >= microseconds(self.since)) and (
            self.until is None or when < microseconds(self.until)
        )

    def _words_fit(self, evidence: Json) -> bool:
        return not self.words or words.has_all(words.text_of(evidence), self.words)

    # --- columns ------------------------------------------------------------------------------

    def mask(self, shard: Columns) -> Flags:
        """The rows of a shard that may fit, words aside."""
        rows = shard.rows
        chosen = np.ones(len(rows), np.bool_)
        if self.category is not None:
            chosen &= rows["category"] == CATEGORIES.index(self.category)
        for name in ("role", "kind"):
            if (word := getattr(self, name)) is not None:
                chosen &= rows[name] == shard.place_of(word)
        if self.model is not None:
            chosen &= np.isin(rows["model"], self._models(shard))
        if self.code is not None:
            chosen &= self._coded(shard)
        if self.since is not None:
            chosen &= rows["ts"] >= microseconds(self.since)
        if self.until is not None:
            chosen &= (rows["ts"] < microseconds(self.until)) & (rows["ts"] != UNDATED)
        return chosen

    def _models(self, shard: Columns) -> list[int]:
        """The words that may name the model; one of them may be another thing's, which the line tells."""
        assert self.model is not None
        return [
            place
            for place, word in enumerate(shard.words)
            if word == self.model or word.endswith(f"/{self.model}")
        ]

    def _coded(self, shard: Columns) -> Flags:
        assert self.code is not None
        place = shard.place_of(self.code)
        having = np.zeros(len(shard.rows), np.bool_)
        for codes in (shard.findings, shard.reasons):
            having[codes["row"][codes["code"] == place]] = True
        return having


def _model(evidence: Json) -> str:
    return f"{evidence['model']['provider']}/{evidence['model']['name']}"


# --- candidates -----------------------------------------------------------------------------------


def page(library: Library, wanted: Wanted, *, limit: int, after: str | None, scan_max: int) -> EvidencePage:
    """Up to `limit` pieces beyond the id `after`, having read no more than `scan_max` lines. Blocks."""
    items: list[EvidenceItem] = []
    last = after
    for seen, found in enumerate(_candidates(library, wanted, after, scan_max + 1)):
        if len(items) == limit or seen == scan_max:
            return EvidencePage(evidence=items, cursor=last)
        last = found.id.hex()
        if (item := _fitting(library, found, wanted)) is not None:
            items.append(item)
    return EvidencePage(evidence=items)


def _fitting(library: Library, found: Found, wanted: Wanted) -> EvidenceItem | None:
    line = library.evidence_line(found)
    if not wanted.may_fit(line):
        return None
    scored = library.scored_line(found)
    if not wanted.fits(orjson.loads(line), orjson.loads(scored) if scored is not None else None):
        return None
    return EvidenceItem(
        evidence=Evidence.model_validate_json(line),
        scored=Scored.model_validate_json(scored) if scored is not None else None,
    )


def _candidates(library: Library, wanted: Wanted, after: str | None, most: int) -> Iterator[Found]:
    """Lines that may fit, in the order of ids: at least `most` of them, if there are so many."""
    manifest, lookup = library.evidence_manifest, library.lookup
    if manifest is None or lookup is None:
        return
    beyond = bytes.fromhex(after) if after is not None else None
    if wanted.by_belonging:
        ids = sorted(belonging(library, wanted))
        found = (lookup.find(one) for one in ids if beyond is None or one > beyond)
        yield from (one for one in found if one is not None)
    elif wanted.by_index:
        for shard, row in _rows(library, manifest.shards, wanted, beyond, most):
            yield library.found_at(shard, row)
    else:
        yield from lookup.after(beyond)


def belonging(library: Library, wanted: Wanted) -> set[bytes]:
    """The ids of what is of the run, or else of the episode, that is looked for: found by key. Blocks."""
    found: set[bytes] = set()
    for part in library.evidence_manifest.shards if library.evidence_manifest else ():
        keys = PartIndex(library.index / f"{part.name}-{part.input_sha256[:16]}.idx")
        if wanted.run_id is not None:
            runs = _with_key(keys, "runs", key_of(part.kind, "run", wanted.run_id))
            if len(runs):
                found |= {one.tobytes() for one in keys.table("rows")["evidence_id"][runs["row"]]}
        elif wanted.episode_id is not None:
            attempts = _with_key(keys, "attempts", key_of(part.kind, "episode", wanted.episode_id))
            found |= {one.tobytes() for one in attempts["evidence_id"]}
    return found


def _with_key(index: PartIndex, table: str, key: Key) -> Table:
    first = key[0] >> 56
    found = index.table(table, first, first + 1)
    same: Table = found[(found["hi"] == key[0]) & (found["lo"] == key[1])]
    return same


def _rows(
    library: Library, parts: Sequence[EvidenceShard], wanted: Wanted, after: bytes | None, most: int
) -> list[tuple[int, int]]:
    """Up to `most` shards and rows beyond an id that may fit, in the order of ids."""
    places: list[NDArray[np.int64]] = [np.empty((2, 0), np.int64)]
    ids: list[NDArray[np.uint64]] = [np.empty((2, 0), np.uint64)]
    for number, part in enumerate(parts):
        table, chosen = _chosen(library, part, wanted)
        high, low = halves_of(table["id"][chosen])
        beyond = np.ones(len(high), np.bool_) if after is None else _beyond(high, low, after)
        places.append(np.stack([np.full(len(chosen), number), chosen])[:, beyond])
        ids.append(np.stack([high, low])[:, beyond])
    (shards, rows), (high, low) = np.concatenate(places, axis=1), np.concatenate(ids, axis=1)
    order = np.lexsort((low, high))[:most]
    return list(zip(shards[order].tolist(), rows[order].tolist(), strict=True))


def _chosen(library: Library, part: EvidenceShard, wanted: Wanted) -> tuple[Table, NDArray[np.int64]]:
    """A table of a shard's ids, and the rows of it that may fit."""
    path = library.columns_of(part)
    read = columns.read(path) if path is not None else None
    if read is None:
        table = np.fromfile(ids_of(library.index, part), ENTRY)
        chosen = np.arange(len(table))
    else:
        table, chosen = read.rows, np.flatnonzero(wanted.mask(read))
    if wanted.words and (having := library.rows_with(part, wanted.words)) is not None:
        chosen = chosen[np.isin(chosen, having)]
    return table, chosen


def _beyond(high: Halves, low: Halves, after: bytes) -> Flags:
    first, second = (np.uint64(int.from_bytes(after[at : at + 8])) for at in (0, 8))
    return np.asarray((high > first) | ((high == first) & (low > second)), np.bool_)
