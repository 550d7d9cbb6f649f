"""The first pass over a shard: evidence becomes rows, each with what grouping and provenance need.

Everything goes into files of the working folder, so that memory holds one shard and a killed export goes on
where it was.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import orjson

from distill.engine import notes
from distill.engine.exports import near, pairs, samples
from distill.engine.exports.near import key_of
from distill.engine.exports.pairs import Plan
from distill.engine.exports.pii import Scanner
from distill.engine.exports.samples import Made
from distill.engine.exports.targets import Row, Unfit
from distill.engine.exports.trainers import TARGETS
from distill.engine.library import Item, Library, Shard, opened
from distill.engine.products import sha256_of
from distill.engine.times import moment
from schemas.distill import JobRequest

COLUMNS: Final = np.dtype(
    [
        ("id", "<u8"),  # the first bits of the evidence id
        ("ts", "<i8"),  # microseconds since 1970, or 0
        ("order", "<i8"),
        ("episode", "<i8"),
        ("prompt", "<i8"),
        ("form", "<i8"),
        ("form_at", "<i8"),  # in the file of forms, or -1 where an earlier row of the shard has the same
        ("form_bytes", "<i4"),
        ("row_high", "<u8"),
        ("row_low", "<u8"),
    ]
)
COUNTERS: Final = ("reasons", "categories", "sources", "lengths", "pii")
PARTS: Final = ("rows", "stubs", "forms", "left", "columns.npy", "bands.npy", "sketches.npy")
"""The files that the first pass makes of a shard."""
NO_DIGEST: Final = bytes(16)


@dataclass(frozen=True, slots=True)
class ShardTask:
    """A shard to work on. `number` is its place among all; `stamp` tells this state of the library from
    others.
    """

    data: Path
    library: Path
    stamp: str
    shard: Shard
    number: int
    work: Path
    options: JobRequest

    def path(self, what: str) -> Path:
        return part(self.work, self.number, what)


def part(work: Path, number: int, what: str) -> Path:
    """A file of one shard in the working folder."""
    return work / f"{number:06d}.{what}"


@dataclass(slots=True)
class Tally:
    """What is counted on the way, for the manifest and the report."""

    seen: int = 0
    rows: int = 0
    drafts: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    lengths: Counter[str] = field(default_factory=Counter)
    pii: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Tally") -> None:
        self.seen += other.seen
        self.rows += other.rows
        self.drafts += other.drafts
        for name in COUNTERS:
            getattr(self, name).update(getattr(other, name))


@dataclass(frozen=True, slots=True)
class Done:
    """A shard that is done: what was counted, and the bytes that were read."""

    tally: Tally
    evidence_sha256: str
    scored_sha256: str


# --- the survey of preference pairs -----------------------------------------------------------


def survey_shard(task: ShardTask) -> None:
    """Write what each piece of evidence of the shard could be in a pair."""
    if _finished(task, "surveyed") is not None:
        return
    library = opened(task.library, task.stamp)
    maker = Maker(library, task.options, None)
    found = pairs.survey(library, task.shard.read(), task.options, maker.try_out)
    np.save(task.path("survey.npy"), found)
    _finish(task, "surveyed", {}, ("survey.npy",))


def _finish(task: ShardTask, what: str, value: dict[str, Any], files: Sequence[str]) -> None:
    """Leave a note, signed, that these files of the shard are finished."""
    hashes = {name: sha256_of(task.path(name)) for name in files}
    notes.keep(task.data, task.path(what), {"value": value, "files": hashes})


def _finished(task: ShardTask, what: str) -> dict[str, Any] | None:
    """What the note says, if there is one and the files are those that it was left for."""
    note = notes.kept(task.data, task.path(what))
    if note is None:
        return None
    for name, sha256 in note["files"].items():
        if not task.path(name).exists() or sha256_of(task.path(name)) != sha256:
            return None
    value: dict[str, Any] = note["value"]
    return value


# --- rows -------------------------------------------------------------------------------------


class Maker:
    """Makes rows for one target under one set of options."""

    def __init__(self, library: Library, options: JobRequest, plan: Plan | None) -> None:
        assert options.kind is not None
        assert options.target is not None
        self._library = library
        self._options = options
        self._plan = plan
        self._kind = options.kind
        self._target = TARGETS[options.kind][options.target]
        self.scanner = Scanner(options.pii)

    def made(self, item: Item) -> Made | None:
        """The sample of this evidence, or None for a draft. Raises `Unfit`."""
        if self._plan is not None:
            return pairs.preference(self._library, item, self._options, self._plan)
        return samples.SINGLES[self._kind](self._library, item, self._options)

    def line(self, made: Made) -> tuple[bytes, int]:
        """The row as a line, and how many values in it are masked. Raises `Unfit`."""
        row, masked = self.scanner.clean(self._target.form(made.sample))
        self._target.check(row)
        return _dumped(row), masked

    def try_out(self, made: Made) -> None:
        """Raise `Unfit` when the sample cannot become a row."""
        self.line(made)


def _dumped(row: Row) -> bytes:
    try:
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        raise Unfit("row.not_utf8", "the row holds half a character, which no file can") from None


def row_shard(task: ShardTask) -> Done:
    """Turn the evidence of a shard into rows. What an earlier run finished is taken as it is."""
    before = _finished(task, "rowed")
    if before is not None:
        return _restored(before)
    plan_path = task.work / "plan.npy"
    library = opened(task.library, task.stamp)
    maker = Maker(library, task.options, Plan.load(plan_path) if plan_path.exists() else None)
    with ExitStack() as stack:
        outs = [
            stack.enter_context(task.path(what).open("wb")) for what in ("rows", "stubs", "forms", "left")
        ]
        writer = _Writer(maker, *outs)
        for item in task.shard.read():
            writer.take(item)
    writer.traits.save(task.work, task.number)
    done = Done(writer.tally, sha256_of(task.shard.evidence), sha256_of(task.shard.scored))
    writer.tally.pii.update(maker.scanner.masked)
    _finish(task, "rowed", _content_of(done), PARTS)
    return done


def _by_band(signatures: list[near.Hashes]) -> near.Hashes:
    """The keys band by band, so that one band is read without the others."""
    if not signatures:
        return np.empty((near.BANDS, 0), dtype=np.uint64)
    return np.ascontiguousarray(np.array(signatures, dtype=np.uint64).T)


def _content_of(done: Done) -> dict[str, Any]:
    tally = done.tally
    return {
        "seen": tally.seen,
        "rows": tally.rows,
        "drafts": tally.drafts,
        **{name: dict(getattr(tally, name)) for name in COUNTERS},
        "evidence_sha256": done.evidence_sha256,
        "scored_sha256": done.scored_sha256,
    }


def _restored(content: dict[str, Any]) -> Done:
    tally = Tally(content["seen"], content["rows"], content["drafts"])
    for name in COUNTERS:
        getattr(tally, name).update(content[name])
    return Done(tally, content["evidence_sha256"], content["scored_sha256"])


class Traits:
    """What grouping has to know of the rows of one shard: their keys, and the masked text of each.

    `forms` takes the masked texts, each once.
    """

    def __init__(self, forms: IO[bytes]) -> None:
        self._columns: list[tuple[Any, ...]] = []
        self._bands: list[near.Hashes] = []
        self._sketches: list[near.Octets] = []
        self._forms = forms
        self._forms_bytes = 0
        self._known: set[int] = set()

    def add(self, evidence: dict[str, Any], prompt: bytes, text: str, digest: bytes = NO_DIGEST) -> None:
        """Take in a row. `prompt` is the one that its chain of repairs began with, `digest` over the row."""
        form = near.masked(text)
        key = key_of(form)
        at = self._keep(form) if key not in self._known else -1
        self._known.add(key)
        task = evidence.get("task") or {}
        self._columns.append(
            (
                int(evidence["evidence_id"][:16], 16),
                moment(ts) if (ts := evidence.get("ts")) else 0,
                _key(task.get("key")),
                _key(evidence.get("episode_id")),
                key_of(prompt),
                key,
                at,
                len(form),
                int.from_bytes(digest[:8], "big"),
                int.from_bytes(digest[8:16], "big"),
            )
        )

    def _keep(self, form: bytes) -> int:
        """Write a form that is new here; return where it lies."""
        at = self._forms_bytes
        self._forms.write(form)
        self._forms_bytes += len(form)
        smallest = near.signature(near.shingles(form))
        self._bands.append(near.bands(smallest))
        self._sketches.append(near.sketch(smallest))
        return at

    def save(self, work: Path, number: int) -> None:
        """Write the columns, band keys and sketches of the shard."""
        np.save(part(work, number, "columns.npy"), np.array(self._columns, dtype=COLUMNS))
        np.save(part(work, number, "bands.npy"), _by_band(self._bands))
        sketches = np.array(self._sketches, np.uint8).reshape(-1, near.SKETCH_BYTES)
        np.save(part(work, number, "sketches.npy"), sketches)


class _Writer:
    """Writes the rows of one shard, with what belongs to each."""

    def __init__(
        self, maker: Maker, rows: IO[bytes], stubs: IO[bytes], forms: IO[bytes], left: IO[bytes]
    ) -> None:
        self.tally = Tally()
        self.traits = Traits(forms)
        self._maker = maker
        self._rows = rows
        self._stubs = stubs
        self._left = left

    def take(self, item: Item) -> None:
        tally = self.tally
        tally.seen += 1
        tally.categories[item.category] += 1
        tally.sources[item.evidence["source"]["kind"]] += 1
        try:
            made = self._maker.made(item)
            if made is None:
                tally.drafts += 1
                return
            line, masked = self._maker.line(made)
        except Unfit as unfit:
            tally.reasons[unfit.code] += 1
            self._left.write(left_out(item.evidence, unfit.code, unfit.detail))
            return
        tally.rows += 1
        tally.lengths[str(len(line).bit_length())] += 1
        self._write(item, made, line, masked)

    def _write(self, item: Item, made: Made, line: bytes, masked: int) -> None:
        digest = hashlib.sha256(line).digest()
        prompt = samples.prompt_bytes(made.first)
        self._rows.write(line)
        self._stubs.write(_stub(item, made, digest, prompt, masked))
        self.traits.add(item.evidence, prompt, said_in(made.first, item), digest)


def said_in(first: Item, item: Item) -> str:
    """The text by which near duplicates are told: what was asked at the first attempt, and the answer."""
    return f"{samples.question_text(first)}\n{samples.answer_text(item)}"


def _key(text: str | None) -> int:
    return key_of(text.encode("utf-8", "surrogatepass")) if text else 0


def _stub(item: Item, made: Made, digest: bytes, prompt: bytes, masked: int) -> bytes:
    """The part of a provenance line that is known before the splits are; one line of JSON."""
    evidence = item.evidence
    stub: dict[str, Any] = {
        "line_sha256": digest.hex(),
        "evidence_id": evidence["evidence_id"],
        "source": evidence["source"],
        "input_sha256": hashlib.sha256(prompt).hexdigest(),
        "masked": masked,
    }
    if made.correction is not None:
        stub["correction"] = made.correction
    if made.pair is not None:
        stub |= {"pair": made.pair, "reasons": made.reasons, "margin": made.margin}
        if made.draft is not None:
            stub["rejected"] = {"evidence_id": made.draft.id, "source": made.draft.evidence["source"]}
    return orjson.dumps(stub, option=orjson.OPT_APPEND_NEWLINE)


def left_out(evidence: dict[str, Any], reason: str, detail: str) -> bytes:
    """A `stillhouse.quarantine` line."""
    return orjson.dumps(
        {
            "schema": "stillhouse.quarantine",
            "schema_version": "1.0",
            "ext": {},
            "reason": reason,
            "detail": detail,
            "source": evidence["source"],
            "evidence_id": evidence["evidence_id"],
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )


def column(work: Path, count: int, name: str) -> np.ndarray[Any, Any]:
    """One column of all shards, in order. Memory holds this one alone."""
    found = [np.load(part(work, number, "columns.npy"))[name].copy() for number in range(count)]
    return np.concatenate(found) if found else np.empty(0, dtype=COLUMNS[name])


def sketches(work: Path, count: int) -> near.Octets:
    """The sketches of all shards' texts, in the order of the band keys."""
    found = [np.load(part(work, number, "sketches.npy")) for number in range(count)]
    return np.concatenate([*found, np.empty((0, near.SKETCH_BYTES), np.uint8)])


def band(work: Path, count: int, number: int) -> Iterator[near.Hashes]:
    """One band's keys, shard by shard."""
    for shard in range(count):
        yield np.array(np.load(part(work, shard, "bands.npy"), mmap_mode="r")[number])
