"""The desk that reviewers work at: they are shown what waits, and what they decide is kept in the log."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

import orjson

from distill.engine import shards
from distill.engine.assemble import review_of
from distill.engine.index import Owner
from distill.engine.library import Item, Library, reading
from distill.engine.log import Log
from distill.engine.review import decisions, index
from distill.engine.review.agreement import reliability
from distill.engine.review.queue import Cursor, Order, Queue
from distill.engine.review.tail import Tail, ends_of
from distill.engine.shards import EvidenceManifest, ScoredManifest
from schemas.distill import Agreement, ReviewItem, ReviewPage, ReviewRequest, ReviewState
from schemas.evidence import Evidence, EvidenceReview, Scored
from schemas.review import Review
from schemas.runs import RunOutput
from services import ids
from services.errors import Conflict, InvalidRequest, NotFound

Result = TypeVar("Result")

REASONS: Final = {
    "no_pairs": "no piece of evidence was decided by two reviewers",
    "no_variation": "all decisions that can be compared are the same, which chance would explain as well",
}


@dataclass(frozen=True, slots=True)
class Ask:
    """Which part of the queue is wanted. With `undecided_by`, that of a reviewer who also sees what others
    decided since the last `score`.
    """

    order: Order
    limit: int
    after: str | None
    role: str | None
    undecided_by: str | None


@dataclass(frozen=True, slots=True)
class _Shelf:
    """The queue and the decisions of one state of the evidence, and the decisions that came after it."""

    evidence: EvidenceManifest | None
    scored: ScoredManifest | None
    queue: Queue
    tail: Tail

    def by_reviewer(self, evidence_id: str) -> dict[str, str]:
        """The latest decision of each reviewer, those included that came after."""
        known = {one.review_id: one for one in self.queue.reviewed.get(evidence_id, ())}
        known |= {one.review_id: one for one in self.tail.decided.get(evidence_id, ())}
        return {
            one.by: one.decision for one in sorted(known.values(), key=lambda one: (one.ts, one.review_id))
        }

    def hidden(self, undecided_by: str | None) -> Iterable[str]:
        """What has been decided since, or by this reviewer ever."""
        if undecided_by is None:
            return self.tail.decided
        return [name for name in self.decided() if undecided_by in self.by_reviewer(name)]

    def decided(self) -> set[str]:
        return self.queue.reviewed.keys() | self.tail.decided.keys()


class Desk:
    """`keep` puts a review into the log, and returns when it is on the disk."""

    def __init__(
        self, source: Log, data: Path, *, keep: Callable[[Review], Awaitable[None]], queue_max: int
    ) -> None:
        self._log = source
        self._data = data
        self._keep = keep
        self._queue_max = queue_max
        self._lock = threading.Lock()
        self._shelf: _Shelf | None = None

    # --- deciding -----------------------------------------------------------------------------

    async def decide(self, evidence_id: str, request: ReviewRequest) -> Review:
        """Keep what somebody decides; the next `materialize` and `score` go by it.

        Raises `NotFound` for evidence that there is not.
        """
        correction = _correction(request)
        if not await self._read(lambda library: library.has(evidence_id)):
            raise _no_evidence(evidence_id)
        review = Review(
            review_id=ids.uuid7(),
            ts=datetime.now(UTC),
            evidence_id=evidence_id,
            decision=request.decision,
            by=request.by,
            note=request.note,
            correction=correction,
        )
        await self._keep(review)
        return review

    # --- showing ------------------------------------------------------------------------------

    async def page(self, ask: Ask) -> ReviewPage:
        """What waits for a decision. Raises `InvalidRequest` for a cursor of another order."""
        after = Cursor.read(ask.after) if ask.after is not None else None
        if after is not None and (after.points is not None) != (ask.order == "value"):
            raise InvalidRequest(
                f"the cursor is not one of the order {ask.order!r}; begin without a cursor", param="cursor"
            )
        return await self._read(lambda library: self._page(library, ask, after))

    async def item(self, evidence_id: str) -> ReviewItem:
        """A piece of evidence with its decisions, whether or not it waits. Raises `NotFound`."""
        return await self._read(lambda library: self._item(library, self._current(library), evidence_id))

    async def agreement(self) -> Agreement:
        """How far reviewers agree, over all pieces that two of them decided, by each one's latest word."""
        return await self._read(self._agreement)

    async def _read(self, ask: Callable[[Library], Result]) -> Result:
        return await asyncio.to_thread(reading, self._data / shards.FOLDER, ask)

    def _page(self, library: Library, ask: Ask, after: Cursor | None) -> ReviewPage:
        shelf = self._current(library)
        queue = shelf.queue
        flags = queue.open(shelf.hidden(ask.undecided_by), ask.role)
        places, more = queue.page(flags, ask.order, ask.limit, after)
        return ReviewPage(
            evidence=[self._item(library, shelf, queue.id_at(place)) for place in places],
            cursor=str(queue.cursor_at(places[-1], ask.order)) if more else None,
            waiting=int(flags.sum()),
            left_out=queue.left_out,
        )

    def _item(self, library: Library, shelf: _Shelf, evidence_id: str) -> ReviewItem:
        found = library.item(evidence_id)
        if found is None:
            raise _no_evidence(evidence_id)
        evidence = Evidence.model_validate_json(found.evidence_line)
        said = self._decisions(evidence)
        place = shelf.queue.place_of(evidence_id)
        return ReviewItem(
            evidence=evidence,
            scored=_scored(found),
            value=shelf.queue.value_at(place) if place is not None else None,
            state=_state(said),
            decisions=said,
        )

    def _decisions(self, evidence: Evidence) -> list[EvidenceReview]:
        """All decisions in the order of their times: the evidence's own, and what the log has beyond them."""
        known = {one.review_id: one for one in evidence.review}
        for location in self._log.index.notes(Owner("evidence", evidence.evidence_id)):
            review = EvidenceReview.model_validate(review_of(orjson.loads(self._log.read(location))))
            known.setdefault(review.review_id, review)
        return sorted(known.values(), key=lambda one: (one.ts, one.review_id))

    def _agreement(self, library: Library) -> Agreement:
        shelf = self._current(library)
        units = [shelf.by_reviewer(name) for name in sorted(shelf.decided())]
        found = reliability([list(unit.values()) for unit in units])
        return Agreement(
            alpha=found.alpha,
            reason=REASONS[found.undefined] if found.undefined is not None else None,
            observed=found.observed,
            items=found.units,
            decisions=found.values,
            reviewers=len({by for unit in units for by in unit}),
            decided=len(units),
        )

    # --- the state of the evidence --------------------------------------------------------------

    def _current(self, library: Library) -> _Shelf:
        """What is known now. Made anew when a stage has written other evidence or categories."""
        evidence, scored = library.evidence_manifest, library.scored_manifest
        with self._lock:
            shelf = self._shelf
            if shelf is None or shelf.evidence is not evidence or shelf.scored is not scored:
                shelf = self._shelf = self._made(library)
            shelf.tail.follow(self._log.snapshot())
            return shelf

    def _made(self, library: Library) -> _Shelf:
        evidence = library.evidence_manifest
        found = (
            index.reviews_of(self._data, shard, library.scored_file(shard))
            for shard in (evidence.shards if evidence else ())
        )
        queue = Queue(found, queue_max=self._queue_max)
        return _Shelf(evidence, library.scored_manifest, queue, Tail(ends_of(evidence)))


def _scored(item: Item) -> Scored | None:
    """The category of this very evidence; None when `score` has not come to it yet."""
    try:
        return Scored.model_validate_json(item.scored_line)
    except Conflict:
        return None


def _state(said: list[EvidenceReview]) -> ReviewState:
    standing = decisions.standing([{"by": one.by, "decision": one.decision} for one in said])
    if standing == "none":
        return "undecided"
    return "disagreed" if standing == "mixed" else "decided"


def _no_evidence(evidence_id: str) -> NotFound:
    return NotFound(f"there is no evidence {evidence_id!r}", code="evidence_not_found")


def _correction(request: ReviewRequest) -> RunOutput | None:
    """The corrected output of a decision. Raises `InvalidRequest` where there has to be one, or none."""
    correction = request.correction
    if (request.decision == "correct") != (correction is not None):
        raise InvalidRequest(
            "`correction` comes with the decision `correct`, and with no other", param="correction"
        )
    if isinstance(correction, str):
        correction = RunOutput(content=correction)
    if correction is not None and not (correction.content or "").strip() and not correction.tool_calls:
        raise InvalidRequest("`correction` has neither text nor calls of tools", param="correction")
    return correction
