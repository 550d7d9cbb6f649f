"""What lists and comparisons ask of evidence, as one table for each shard: read without parsing a line.

`score`, which has every line parsed anyway, leaves them beside the index. They can be made again from the
shards, and a shard that has none is read line by line where that is bounded.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
import orjson
from numpy.typing import NDArray

from distill.engine.episodes import is_replay
from distill.engine.partindex import key_of
from distill.engine.scan import verdict_code
from distill.engine.sources.turn import text_of
from distill.engine.times import moment
from schemas.evidence import Category
from services import files

SUFFIX: Final = ".columns-1"
"""What is laid out otherwise gets another number, so that nobody reads the one for the other."""

WORDS: Final = ("role", "kind", "model", "config", "prompt", "roster", "policy")
"""Columns that hold a place in the list of words; 0 stands for none."""
ROW: Final = np.dtype(
    [
        ("id", "V32"),
        ("ts", "<i8"),  # microseconds since 1970, or `UNDATED`
        ("group", "<u8"),  # the same for what belongs to one task, or else to one episode
        ("task", "<u8"),  # the same for one task; 0 where it has no key
        ("length", "<f8"),  # characters of the answer
        ("latency", "<f8"),  # milliseconds
        ("cost", "<f8"),  # US dollars
        *((name, "<u4") for name in WORDS),
        ("category", "u1"),  # the place in `CATEGORIES`
        ("verdict", "u1"),  # as in partindex
        ("first", "?"),  # it repairs no other
        ("replay", "?"),  # it was made by a replay, not by those who use the models
    ]
)
CODE: Final = np.dtype([("row", "<u4"), ("code", "<u4")])
"""A code of row `row`, as a place in the list of words."""

CATEGORIES: Final[tuple[Category, ...]] = get_args(Category)
UNDATED: Final = np.iinfo(np.int64).min

Json = dict[str, Any]
Table = NDArray[np.void]


def path_of(index: Path, scored: Path) -> Path:
    """Where the columns of a shard lie, whose categories are in the file `scored`."""
    return index / f"{scored.stem}{SUFFIX}"


@dataclass(frozen=True, slots=True)
class Columns:
    """One row for each piece of evidence, in the order of ids. `findings` are the codes of its verdict,
    `reasons` those of its category, each code once a row.
    """

    rows: Table
    findings: Table
    reasons: Table
    words: list[str]

    def place_of(self, word: str) -> int:
        """Where a word is in the list; beyond its end when no row has it."""
        return self.words.index(word) if word in self.words else len(self.words)


class Builder:
    """Gathers the columns of one shard, piece by piece."""

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []
        self._findings: list[tuple[int, int]] = []
        self._reasons: list[tuple[int, int]] = []
        self._words: dict[str, int] = {"": 0}
        self._prompts: dict[str, str] = {}

    def take(self, evidence: Json, category: Category, reasons: Sequence[str]) -> None:
        row = len(self._rows)
        verdict = evidence["verdict"]
        evidence_id = bytes.fromhex(evidence["evidence_id"])
        task, group = _belongs(evidence)
        self._rows.append(
            (
                evidence_id,
                moment(evidence["ts"]) if evidence["ts"] else UNDATED,
                group,
                task,
                *_numbers(evidence),
                *(self._place(word) for word in self._words_of(evidence, verdict)),
                CATEGORIES.index(category),
                verdict_code(verdict),
                evidence["repair_of"] is None,
                is_replay(evidence),
            )
        )
        found = {finding["code"] for finding in verdict["findings"]} if verdict else ()
        self._findings += [(row, self._place(code)) for code in sorted(found)]
        self._reasons += [(row, self._place(code)) for code in sorted(set(reasons))]

    def write(self, path: Path) -> None:
        """Put the columns in place, whole or not at all."""
        tables = [
            np.array(rows, kind)
            for rows, kind in ((self._rows, ROW), (self._findings, CODE), (self._reasons, CODE))
        ]
        head = orjson.dumps({"counts": [len(table) for table in tables], "words": list(self._words)})
        blobs = [table.tobytes() for table in tables]
        files.replace(path, b"".join([struct.pack("<Q", len(head)), head, *blobs]))

    def _place(self, word: str) -> int:
        return self._words.setdefault(word, len(self._words))

    def _words_of(self, evidence: Json, verdict: Json | None) -> tuple[str, ...]:
        """The words of a row, in the order of `WORDS`."""
        model, task = evidence["model"], evidence["task"]
        return (
            evidence["role"] or "",
            task["kind"] if task else "",
            f"{model['provider']}/{model['name']}",
            evidence["config_hash"] or "",
            self._prompt(evidence["input"]["messages"]),
            ((verdict or {}).get("roster") or {}).get("sha256", ""),
            verdict["validator"]["policy_version"] if verdict else "",
        )

    def _prompt(self, messages: Sequence[Json]) -> str:
        """A hash of what stood above the task: the messages of the system and of the developer."""
        above = "\0".join(
            text_of(message.get("content")) or ""
            for message in messages
            if message.get("role") in ("system", "developer")
        )
        if not above:
            return ""
        known = self._prompts.get(above)
        if known is None:
            digest = hashlib.sha256(above.encode("utf-8", "surrogatepass")).hexdigest()
            known = self._prompts[above] = digest[:16]
        return known


def _belongs(evidence: Json) -> tuple[int, int]:
    """The hashes of the task, or 0, and of what the piece cannot be told apart from."""
    task = evidence["task"]
    if task and task["key"]:
        own = key_of("task", task["kind"], task["key"])[0]
        return own, own
    if evidence["episode_id"]:
        return 0, key_of("episode", evidence["source"]["kind"], evidence["episode_id"])[0]
    return 0, int(evidence["evidence_id"][:16], 16)


def _numbers(evidence: Json) -> tuple[float, float, float]:
    content = (evidence["output"] or {}).get("content")
    latency, cost = evidence["latency_ms"], evidence["usage"]["cost_usd"]
    return (
        float("nan") if content is None else len(content),
        float("nan") if latency is None else latency,
        float("nan") if cost is None else cost,
    )


def read(path: Path) -> Columns | None:
    """The columns of a shard, or None when it has none."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        head = orjson.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        rows, findings, reasons = (
            np.fromfile(file, kind, count)
            for kind, count in zip((ROW, CODE, CODE), head["counts"], strict=True)
        )
    return Columns(rows, findings, reasons, head["words"])
