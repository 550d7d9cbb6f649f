"""Which evidence becomes a row of which dataset, and the named reasons why the rest does not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson

from distill.engine import targets
from distill.engine.index import digest_of
from distill.engine.library import Judged, Library
from distill.engine.progress import Progress
from distill.engine.targets import Row, Unfit
from schemas.base import JsonObject
from schemas.canonical import canonical_bytes
from schemas.evidence import PreferenceSample, RagSample, SftSample
from schemas.runs import RunOutput


@dataclass(frozen=True, slots=True)
class Made:
    """A training line, and the draft that is part of it where it is a pair."""

    line: bytes
    draft: Judged | None = None


class Plan(Protocol):
    def place(self, judged: Judged) -> Made | None:
        """The row made of this evidence, or None when it is the draft in another row. Raises `Unfit`."""


RowOf = Callable[[Library, Judged], Row]


class Singles:
    """One row for each accepted piece of evidence; a row that is there already is not repeated."""

    def __init__(self, library: Library, row_of: RowOf) -> None:
        self._library = library
        self._row_of = row_of
        self._rows: set[bytes] = set()

    def place(self, judged: Judged) -> Made | None:
        _require_accepted(judged)
        line = _line(self._row_of(self._library, judged))
        _require_new(line, self._rows)
        return Made(line)


class Pairs:
    """One row for each accepted repair, with the first draft as what it is preferred to.

    A look ahead finds the pairs, since a draft may come before or after its repair in the order of ids.
    """

    def __init__(
        self, library: Library, row_of: Callable[[PreferenceSample], Row], progress: Progress
    ) -> None:
        self._library = library
        self._row_of = row_of
        self._drafts: set[str] = set()
        self._refused: dict[str, Unfit] = {}
        rows: set[bytes] = set()
        for judged, behind in library.in_order():
            progress.reach(behind, library.size_bytes(), end=0.5)
            if judged.scored.category == "accepted" and judged.evidence.repair_of is not None:
                self._claim(judged, rows)

    def _claim(self, judged: Judged, rows: set[bytes]) -> None:
        try:
            made = self._pair(judged)
            assert made.draft is not None
            _require_new(made.line, rows)
        except Unfit as unfit:
            self._refused[judged.id] = unfit
            return
        if made.draft.id in self._drafts:
            self._refused[judged.id] = Unfit("pair.draft_used", "the draft is part of another pair")
        self._drafts.add(made.draft.id)

    def place(self, judged: Judged) -> Made | None:
        if judged.id in self._drafts:
            return None
        _require_accepted(judged)
        if (unfit := self._refused.get(judged.id)) is not None:
            raise unfit
        return self._pair(judged)

    def _pair(self, judged: Judged) -> Made:
        if judged.evidence.repair_of is None:
            raise Unfit("pair.none", "accepted at the first attempt, so there is no draft to prefer it to")
        draft = _first_attempt(self._library, judged)
        chosen, rejected, reasons = _contrast(judged, draft)
        sample = PreferenceSample(
            evidence_id=judged.id,
            rejected_evidence_id=draft.id,
            messages=draft.evidence.input.messages,
            tools=draft.evidence.input.tools,
            chosen=chosen,
            rejected=rejected,
            reasons=reasons,
        )
        return Made(_line(self._row_of(sample)), draft)


def reasons_of(draft: Judged) -> list[str]:
    """The codes for which a draft was rejected, the verdict's own name left out."""
    return [code for code in draft.scored.reasons if not code.startswith("verdict.")]


def _contrast(judged: Judged, draft: Judged) -> tuple[RunOutput, RunOutput, list[str]]:
    """Chosen and rejected output, and why. Raises `Unfit` unless they differ for a named reason."""
    if draft.scored.category != "rejected":
        raise Unfit("pair.draft_not_rejected", f"the first attempt is {draft.scored.category}")
    chosen, rejected = judged.evidence.output, draft.evidence.output
    if chosen is None or rejected is None:
        raise Unfit("pair.draft_empty", "the first attempt gave no answer")
    if _canonical(chosen) == _canonical(rejected):
        raise Unfit("pair.same_output", "both attempts say the same")
    verdicts = [one.evidence.verdict.verdict if one.evidence.verdict else None for one in (judged, draft)]
    if verdicts[0] == verdicts[1]:
        raise Unfit("pair.same_verdict", "both attempts have the same verdict")
    reasons = reasons_of(draft)
    if not reasons:
        raise Unfit("pair.no_reason", "no code says why the first attempt was rejected")
    return chosen, rejected, reasons


def _canonical(output: RunOutput) -> bytes:
    """What an output says: JSON text by its value, other text without the white space around it."""
    text = (output.content or "").strip()
    try:
        value: Any = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = None
    try:
        return canonical_bytes([text if value is None else value, output.tool_calls])
    except ValueError:  # numbers that have no canonical form
        return canonical_bytes([text, output.tool_calls])


def _first_attempt(library: Library, judged: Judged) -> Judged:
    """The attempt with the original prompt, which later ones continue. Raises `Unfit`."""
    first = library.first_attempt(judged)
    if first is None:
        raise Unfit("input.no_first_attempt", "the first attempt cannot be found")
    if not _continues(judged.evidence.input.messages, first.evidence.input.messages):
        raise Unfit("input.differs", "the attempt does not continue the prompt of the first one")
    return first


def _continues(messages: list[JsonObject], prompt: list[JsonObject]) -> bool:
    """Whether `messages` are the prompt and more: in further messages, or at the end of its own ones."""
    if len(messages) < len(prompt):
        return False
    return all(map(_extends, messages, prompt))


def _extends(message: JsonObject, original: JsonObject) -> bool:
    text, start = message.get("content"), original.get("content")
    if not isinstance(text, str) or not isinstance(start, str):
        return message == original
    return text.startswith(start) and {**message, "content": start} == original


def _require_accepted(judged: Judged) -> None:
    if judged.scored.category != "accepted":
        raise Unfit(f"category.{judged.scored.category}", ", ".join(judged.scored.reasons))


def _require_new(line: bytes, rows: set[bytes]) -> None:
    digest = digest_of(line)
    if digest in rows:
        raise Unfit("row.duplicate", "the same row is in the dataset already")
    rows.add(digest)


def _line(row: Row) -> bytes:
    return orjson.dumps(row) + b"\n"


# --- kinds ------------------------------------------------------------------------------------


def _sft(target: Callable[[SftSample], Row]) -> RowOf:
    def row_of(library: Library, judged: Judged) -> Row:
        first = _first_attempt(library, judged).evidence
        assert judged.evidence.output is not None  # accepted evidence has one
        return target(
            SftSample(
                evidence_id=judged.id,
                messages=first.input.messages,
                tools=first.input.tools,
                answer=judged.evidence.output,
            )
        )

    return row_of


def _rag(target: Callable[[RagSample], Row]) -> RowOf:
    def row_of(library: Library, judged: Judged) -> Row:
        evidence, output = judged.evidence, judged.evidence.output
        query = _last_question(_first_attempt(library, judged))
        if query is None:
            raise Unfit("input.no_question", "there is no user message of plain text")
        if output is None or not output.content:
            raise Unfit("output.no_text", "the answer has no text to be retrieved")
        return target(
            RagSample(
                evidence_id=judged.id,
                task=evidence.task,
                role=evidence.role,
                query=query,
                text=output.content,
            )
        )

    return row_of


def _last_question(judged: Judged) -> str | None:
    for message in reversed(judged.evidence.input.messages):
        if message.get("role") == "user":
            content = message.get("content")
            return content if isinstance(content, str) and content.strip() else None
    return None


PlanOf = Callable[[Library, Progress], Plan]


def _singles(row_of: RowOf) -> PlanOf:
    return lambda library, _: Singles(library, row_of)


def _pairs(target: Callable[[PreferenceSample], Row]) -> PlanOf:
    return lambda library, progress: Pairs(library, target, progress)


PLANS: Final[Mapping[str, Mapping[str, PlanOf]]] = {
    "rag": {name: _singles(_rag(form)) for name, form in targets.RAG.items()},
    "sft": {name: _singles(_sft(form)) for name, form in targets.SFT.items()},
    "preference": {name: _pairs(form) for name, form in targets.PREFERENCE.items()},
}
"""What can be exported, for whom."""
