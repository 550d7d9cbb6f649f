"""Preference pairs: two answers to one prompt, of which one was judged better for a named reason.

They come from repairs (the first draft against the accepted repair), from corrections (an answer against
what a person put in its place) and from two answers to the same prompt that were judged apart. A first look
over all evidence (`survey`) finds out who can be paired with whom, `plan` decides, so that nothing is used
twice, and `preference` makes the sample.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from distill.engine.exports.near import key_of
from distill.engine.exports.samples import (
    SCORES,
    Made,
    Output,
    canonical_output,
    messages_of,
    original,
    output_of,
    prompt_bytes,
    require_taken,
)
from distill.engine.exports.targets import Unfit
from distill.engine.library import Item, Library
from distill.engine.review.decisions import correction_that_stands
from schemas.canonical import canonical_bytes
from schemas.distill import JobRequest
from schemas.runs import RunOutput

DRAFT: Final = 1
PREFERRED: Final = 2
REFUSED: Final = 3

SURVEYED: Final = np.dtype(
    [
        ("id", "S64"),
        ("draft", "S64"),  # of a repair
        ("prompt", "<i8"),
        ("output", "<i8"),
        ("side", "<i1"),  # 1 better, -1 worse, of a pair of two answers; 0 neither
    ]
)
PLANNED: Final = np.dtype([("id", "S64"), ("role", "<u1"), ("other", "S64")])

Surveyed = NDArray[np.void]
Fits = Callable[[Made], None]

OTHER_ANSWER: Final = {"content": "\u2026", "finish_reason": "stop"}


def reasons_of(item: Item) -> tuple[str, ...]:
    """The codes for which a draft was rejected, the verdict's own name left out."""
    return tuple(code for code in item.reasons if not code.startswith("verdict."))


@dataclass(frozen=True, slots=True)
class Plan:
    """Who is part of which pair, sorted by id; a piece of evidence that is not named is in none by plan."""

    entries: NDArray[np.void]

    @classmethod
    def load(cls, path: Path) -> "Plan":
        return cls(np.load(path, mmap_mode="r"))

    def save(self, path: Path) -> None:
        np.save(path, self.entries)

    def of(self, evidence_id: str) -> tuple[int, str]:
        """The role of a piece of evidence, and the other side where it is the preferred one."""
        ids = self.entries["id"]
        key = evidence_id.encode()
        place = int(np.searchsorted(ids, key))
        if place == len(ids) or ids[place] != key:
            return 0, ""
        entry = self.entries[place]
        return int(entry["role"]), entry["other"].decode()


def survey(library: Library, items: Iterator[Item], options: JobRequest, fits: Fits) -> Surveyed:
    """What each piece of evidence could be in a pair. `fits` raises `Unfit` for what cannot become a row."""
    rows = []
    for item in items:
        row = _surveyed(library, item, options, fits)
        if row is not None:
            rows.append(row)
    return np.array(rows, dtype=SURVEYED)


def _surveyed(library: Library, item: Item, options: JobRequest, fits: Fits) -> tuple[Any, ...] | None:
    output = output_of(item)
    if output is None or item.category not in SCORES or correction_of(item) is not None:
        return None
    own, said = item.id.encode(), key_of(canonical_output(output))
    try:
        if item.evidence.get("repair_of") is not None and _taken(item, options):
            made = _repair(library, item, options)
            fits(made)
            assert made.draft is not None
            return own, made.draft.id.encode(), 0, said, 0
        side = _side(item, options)
        if side:
            fits(_alone(item))
            return own, b"", key_of(prompt_bytes(item)), said, side
    except Unfit:
        pass  # whoever makes the rows says why
    return None


def _taken(item: Item, options: JobRequest) -> bool:
    return item.category == "accepted" or (options.include_partial and item.category == "partially_accepted")


def _side(item: Item, options: JobRequest) -> int:
    """Better, worse or neither, in a pair of two answers to one prompt."""
    if item.evidence.get("repair_of") is None and _taken(item, options):
        return 1
    return -1 if item.category == "rejected" and reasons_of(item) else 0


def _alone(item: Item) -> Made:
    """A pair of this answer and some other one, to see whether it could be a row."""
    output = output_of(item)
    return Made({**_prompt(item), "chosen": output, "rejected": OTHER_ANSWER}, item)


def worth_planning(paths: Sequence[Path]) -> Surveyed:
    """Of the surveys in these files, the repairs, and the answers to prompts that have better and worse
    ones.
    """
    sides = [np.load(path, mmap_mode="r")[["prompt", "side"]] for path in paths]
    answers = np.concatenate(sides) if sides else np.empty(0, dtype=SURVEYED)
    better, worse = (np.unique(answers["prompt"][answers["side"] == side]) for side in (1, -1))
    both = np.intersect1d(better, worse, assume_unique=True)
    kept = []
    for path in paths:
        surveyed = np.load(path)
        wanted = (surveyed["draft"] != b"") | ((surveyed["side"] != 0) & np.isin(surveyed["prompt"], both))
        kept.append(surveyed[wanted])
    return np.concatenate(kept) if kept else np.empty(0, dtype=SURVEYED)


def plan(surveyed: Surveyed) -> Plan:
    """Each draft goes to its first repair, in the order of ids; other better answers get a worse one each."""
    repairs = surveyed[surveyed["draft"] != b""]
    repairs = repairs[np.lexsort((repairs["id"], repairs["draft"]))]
    again = np.zeros(len(repairs), dtype=np.bool_)
    again[1:] = repairs["draft"][1:] == repairs["draft"][:-1]
    drafts = repairs["draft"][~again]
    answers = surveyed[surveyed["side"] != 0]
    answers = answers[(answers["side"] > 0) | ~np.isin(answers["id"], drafts)]
    entries = np.concatenate(
        (
            _entries(drafts, DRAFT),
            _entries(repairs["id"][again], REFUSED),
            np.array(list(_answers(answers)), dtype=PLANNED),
        )
    )
    return Plan(entries[np.argsort(entries["id"], kind="stable")])


def _entries(ids: NDArray[np.bytes_], role: int) -> NDArray[np.void]:
    entries = np.zeros(len(ids), dtype=PLANNED)
    entries["id"], entries["role"] = ids, role
    return entries


def _answers(answers: Surveyed) -> Iterator[tuple[bytes, int, bytes]]:
    ordered = answers[np.lexsort((answers["id"], answers["prompt"]))]
    bounds = np.flatnonzero(np.diff(ordered["prompt"])) + 1
    for alike in np.split(ordered, bounds) if len(ordered) else ():
        worse: dict[int, deque[bytes]] = {}
        for one in alike[alike["side"] < 0]:
            worse.setdefault(int(one["output"]), deque()).append(one["id"])
        for better in alike[alike["side"] > 0]:
            other = next((output for output in worse if output != better["output"]), None)
            if other is not None:
                rejected = worse[other].popleft()
                if not worse[other]:
                    del worse[other]
                yield better["id"], PREFERRED, rejected
                yield rejected, DRAFT, b""


# --- samples ----------------------------------------------------------------------------------


def preference(library: Library, item: Item, options: JobRequest, planned: Plan) -> Made | None:
    """The pair in which this is the better answer, or None when it is the worse one of another. Raises
    `Unfit`.
    """
    role, other = planned.of(item.id)
    if role == DRAFT:
        return None
    correction = correction_of(item)
    if correction is not None:
        return _corrected(item, *correction, options)
    require_taken(item, include_partial=options.include_partial)
    if role == REFUSED:
        raise Unfit("pair.draft_used", "the draft is part of another pair")
    if role == PREFERRED:
        worse = library.item(other)
        if worse is None:
            raise Unfit("pair.other_missing", "the other answer cannot be found")
        return _made("feedback", item, worse, item, options)
    if item.evidence.get("repair_of") is None:
        raise Unfit("pair.none", "accepted at the first attempt, and no other answer was worse")
    return _repair(library, item, options)


def _repair(library: Library, item: Item, options: JobRequest) -> Made:
    draft = original(library, item)
    if draft.category not in ("rejected", "partially_accepted"):
        raise Unfit("pair.draft_not_rejected", f"the first attempt is {draft.category}")
    return _made("repair", item, draft, draft, options)


def _made(pair: str, item: Item, worse: Item, first: Item, options: JobRequest) -> Made:
    chosen = output_of(item)
    margin = SCORES[item.category] - SCORES[worse.category]
    _require_contrast(chosen, worse, margin, options)
    assert chosen is not None
    return _pair_of(pair, chosen, worse, first, margin)


def _require_contrast(chosen: Output | None, worse: Item, margin: float, options: JobRequest) -> None:
    """Raise `Unfit` unless two answers differ, by enough, for a named reason."""
    rejected = output_of(worse)
    if chosen is None or rejected is None:
        raise Unfit("pair.draft_empty", "the first attempt gave no answer")
    if canonical_output(chosen) == canonical_output(rejected):
        raise Unfit("pair.same_output", "both answers say the same")
    if margin <= 0:
        raise Unfit("pair.same_verdict", "both answers were judged alike")
    if margin < options.margin_min:
        raise Unfit(
            "pair.margin", f"the judgements differ by {margin}; at least {options.margin_min} is asked"
        )
    if not reasons_of(worse):
        raise Unfit("pair.no_reason", "no code says why the other answer was rejected")


def _pair_of(pair: str, chosen: Output, worse: Item, first: Item, margin: float) -> Made:
    if prompt_bytes(first) != prompt_bytes(worse):
        raise Unfit("input.differs", "the two answers are not to the same prompt")
    sample = {**_prompt(first), "chosen": chosen, "rejected": output_of(worse)}
    return Made(sample, first, pair, None, worse, reasons_of(worse), margin)


def _prompt(item: Item) -> dict[str, Any]:
    return {"messages": messages_of(item), "tools": item.evidence["input"].get("tools")}


# --- corrections ------------------------------------------------------------------------------


def correction_of(item: Item) -> tuple[Output, str] | None:
    """What a person put in the place of this answer, and the id of the record that says so.

    A reviewer's correction that stands goes before a demonstration; of several the latest counts.
    """
    review = correction_that_stands(item.evidence.get("review") or ())
    if review is not None:
        return review["correction"], review["review_id"]
    shown = [
        (one["ts"], one["feedback_id"], _as_output(one["value"]))
        for one in item.evidence.get("feedback") or ()
        if one["kind"] == "demonstration" and one["scope"] == "run"
    ]
    if not shown:
        return None
    _, name, output = max(shown, key=lambda one: one[:2])
    return output, name


def _as_output(value: Any) -> Output:
    """A demonstration as an output: a text, an output already, or an artifact that the answer was to be."""
    if isinstance(value, str):
        return {"content": value}
    if isinstance(value, Mapping) and value and _is_output(value):
        return value
    return {"content": canonical_bytes(value).decode()}


def _is_output(value: Mapping[str, Any]) -> bool:
    try:
        RunOutput.model_validate({"content": None, **value})
    except ValidationError:
        return False
    return True


def _corrected(item: Item, output: Output, name: str, options: JobRequest) -> Made:
    if item.category == "accepted":
        raise Unfit("pair.same_verdict", "the answer that was corrected counts as accepted")
    margin = SCORES["accepted"] - SCORES.get(item.category, SCORES["rejected"])
    _require_contrast(output, item, margin, options)
    return replace(_pair_of("correction", output, item, item, margin), correction=name)
