"""What `distill` is asked to do: keep what was observed, tell what is known, and run the stages."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import orjson
from pydantic import ValidationError

from distill.engine import compare, datasets, drift, intake, replay, search, shards
from distill.engine.identity import evidence_id_of
from distill.engine.index import Entry, Outcome, Owner
from distill.engine.intake import Line, Parsed, Refused
from distill.engine.jobs import Jobs
from distill.engine.library import Library, reading
from distill.engine.life import life_of
from distill.engine.log import Log
from distill.engine.metrics import Metrics
from distill.engine.places import DATASETS
from distill.engine.review.desk import Desk
from distill.engine.search import Wanted
from schemas.distill import DatasetPage, EvidencePage, FeedbackRequest, RunLife, RunView
from schemas.replay import ReplayPage
from schemas.review import Review
from schemas.runs import Feedback, LineRejection, Run, RunsAccepted, VerdictRecord
from services import ids
from services.errors import Conflict, InvalidRequest, NotFound, PlatformError

Result = TypeVar("Result")

INLINE_BYTES_MAX: Final = 64 * 1024
"""A smaller body is parsed on the event loop: handing it to a thread would take longer."""


KEPT: Final[frozenset[Outcome]] = frozenset({"appended", "repeated"})


@dataclass(frozen=True, slots=True)
class Received:
    """The records of a body, each with the number of its line, and the lines that were refused."""

    entries: list[Entry]
    numbers: list[int]
    refused: list[Refused]
    single: bool

    def take(self, parsed: Parsed) -> None:
        """Add what further lines are."""
        self.entries.extend(parsed.entries)
        self.numbers.extend(parsed.numbers)
        self.refused.extend(parsed.refused)


class Engine:
    def __init__(
        self,
        source: Log,
        data: Path,
        jobs: Jobs,
        metrics: Metrics,
        *,
        lines_max: int,
        depth_max: int,
        page_scan_max: int,
        life_bytes_max: int,
        review_queue_max: int,
    ) -> None:
        self.jobs = jobs
        self.desk = Desk(source, data, keep=self._keep_note, queue_max=review_queue_max)
        self._log = source
        self._data = data
        self._evidence = data / shards.FOLDER
        self._datasets = data / DATASETS
        metrics.datasets.set_function(partial(datasets.count, self._datasets))
        self._metrics = metrics
        self._lines_max = lines_max
        self._depth_max = depth_max
        self._page_scan_max = page_scan_max
        self._life_bytes_max = life_bytes_max

    # --- keeping ------------------------------------------------------------------------------

    async def keep_record(self, body: bytes, principal: str | None) -> RunsAccepted:
        """Keep one record. Raises `InvalidRequest` or, for a known id with other content, `Conflict`."""
        try:
            received = await _off_loop(len(body), lambda: self.receive(body, principal, single=True))
        except InvalidRequest as error:
            self._metrics.rejected.labels(error.code).inc()
            raise
        return self.accepted(received, await self._append(received.entries))

    async def keep_lines(self, body: bytes, principal: str | None) -> RunsAccepted:
        """Keep the good lines of NDJSON, and say of each other one why it was not taken."""
        received = Received([], [], [], single=False)
        for lines in _slices(intake.lines_of(body, lines_max=self._lines_max)):
            size = sum(len(line.data) for line in lines)
            received.take(await _off_loop(size, partial(self._parse, lines, principal)))
            await asyncio.sleep(0)  # let others have a turn
        return self.accepted(received, await self._append(received.entries))

    def _parse(self, lines: Sequence[Line], principal: str | None) -> Parsed:
        return intake.parse_lines(lines, principal, depth_max=self._depth_max)

    def receive(self, body: bytes, principal: str | None, *, single: bool) -> Received:
        """Read one record or NDJSON. Raises `InvalidRequest` for a body that is refused as a whole."""
        if single:
            return Received(
                [intake.parse_record(body, principal, depth_max=self._depth_max)], [1], [], single=True
            )
        received = Received([], [], [], single=False)
        received.take(self._parse(intake.lines_of(body, lines_max=self._lines_max), principal))
        return received

    def offer(self, received: Received) -> asyncio.Future[list[Outcome]]:
        """Hand records to the log; `accepted` makes the answer of what the future holds."""
        return self._log.offer(received.entries)

    def accepted(self, received: Received, outcomes: Sequence[Outcome]) -> RunsAccepted:
        """The answer. Raises `Conflict` where a single record was refused by the log."""
        self._metrics.repeated.inc(outcomes.count("repeated"))
        refused = list(received.refused)
        for number, entry, outcome in zip(received.numbers, received.entries, outcomes, strict=True):
            if outcome in KEPT:
                continue
            conflict = _conflict(entry, outcome)
            if received.single:
                self._metrics.rejected.labels(conflict.code).inc()
                raise conflict
            refused.append(Refused(number, conflict))
        for one in refused:
            self._metrics.rejected.labels(one.error.code).inc()
        refused.sort(key=lambda one: one.line)
        return RunsAccepted(
            accepted=len(received.entries) + len(received.refused) - len(refused),
            rejected=[
                LineRejection(line=one.line, code=one.error.code, message=one.error.message)
                for one in refused
            ],
        )

    async def _append(self, entries: list[Entry]) -> list[Outcome]:
        return await self._log.append(entries) if entries else []

    async def keep_feedback(self, request: FeedbackRequest) -> Feedback:
        """Keep what somebody says. The run need not have arrived yet: recorders deliver with a delay."""
        _check_feedback(request)
        feedback = Feedback(
            feedback_id=ids.uuid7(), ts=datetime.now(UTC), **request.model_dump(exclude_unset=True)
        )
        await self._keep_note(feedback)
        return feedback

    async def _keep_note(self, note: Feedback | Review) -> None:
        record = note.model_dump(mode="json")
        intake.check_depth(record, self._depth_max)
        entry = intake.entry_of(record)
        (outcome,) = await self._append([entry])
        if outcome not in KEPT:
            raise _conflict(entry, outcome)

    # --- telling ------------------------------------------------------------------------------

    async def run(self, run_id: str, *, life: bool = False) -> RunView:
        """A run with everything said of it and of its episode, and what became of it. Raises `NotFound`."""
        line = await self._log.run_line(run_id)
        if line is None:
            raise NotFound(f"there is no run {run_id!r}", code="run_not_found", param="run_id")
        run = _readable(line)
        notes = await self._log.note_lines(Owner("run", run_id))
        if run.episode_id is not None:
            notes += await self._log.note_lines(Owner("episode", run.episode_id))
        records = [orjson.loads(note) for note in notes]
        evidence_id = evidence_id_of(run)
        return RunView(
            run=run,
            verdicts=[
                VerdictRecord.model_validate(one)
                for one in records
                if one["schema"] == VerdictRecord.schema_id
            ],
            feedback=[Feedback.model_validate(one) for one in records if one["schema"] == Feedback.schema_id],
            evidence_id=evidence_id,
            category=await self._read(lambda library: library.category_of(evidence_id)),
            life=await self._life(evidence_id, run.episode_id) if life else None,
        )

    async def _life(self, evidence_id: str, episode_id: str | None) -> RunLife:
        return await self._read(
            lambda library: life_of(
                library, self._data, evidence_id, episode_id, bytes_max=self._life_bytes_max
            )
        )

    async def evidence(self, wanted: Wanted, limit: int, after: str | None) -> EvidencePage:
        return await self._read(
            partial(search.page, wanted=wanted, limit=limit, after=after, scan_max=self._page_scan_max)
        )

    async def _read(self, ask: Callable[[Library], Result]) -> Result:
        return await asyncio.to_thread(reading, self._evidence, ask)

    async def datasets(self, limit: int, after: str | None) -> DatasetPage:
        return await asyncio.to_thread(datasets.page, self._datasets, limit=limit, after=after)

    async def replays(self, limit: int, after: str | None) -> ReplayPage:
        return await asyncio.to_thread(replay.page, self._data, limit=limit, after=after)

    async def replay_file(self, replay_id: str, name: str) -> Path:
        """Where a file of a finished replay lies. Raises `NotFound`."""
        return await asyncio.to_thread(replay.file_of, self._data, replay_id, name)

    async def dataset_file(self, dataset_id: str, name: str) -> Path:
        """Where a file of a dataset lies. Raises `NotFound`."""
        return await asyncio.to_thread(datasets.file_of, self._datasets, dataset_id, name)

    async def drift_file(self, name: str) -> Path:
        """Where a drift record or profile lies. Raises `NotFound`."""
        return await asyncio.to_thread(drift.file_of, self._data, name)

    async def comparison_file(self, comparison_id: str, name: str) -> Path:
        """Where a file of a comparison lies. Raises `NotFound`."""
        return await asyncio.to_thread(compare.file_of, self._data, comparison_id, name)


def _conflict(entry: Entry, outcome: Outcome) -> Conflict:
    """Why the log did not take a record."""
    if outcome == "run_id_conflict":
        return Conflict(
            f"run {entry.owner.id!r} is in the log with other content; a run is never changed, "
            "send this one under a new `run_id`",
            code="run_id_conflict",
            param="run_id",
        )
    return Conflict(
        f"{entry.owner.scope} {entry.owner.id!r} has as many verdicts, feedback or decisions as it may have",
        code="notes_full",
        param=f"{entry.owner.scope}_id",
    )


def _slices(lines: Sequence[Line]) -> Iterator[Sequence[Line]]:
    """Lines, a few at a time: as many as are read in about a millisecond, or one long one."""
    start = size = 0
    for place, line in enumerate(lines):
        size += len(line.data)
        if size > INLINE_BYTES_MAX and place > start:
            yield lines[start:place]
            start, size = place, len(line.data)
    if start < len(lines):
        yield lines[start:]


async def _off_loop(size: int, work: Callable[[], Result]) -> Result:
    """Do `work` on a body of this size, where it does not hold up other requests."""
    return work() if size <= INLINE_BYTES_MAX else await asyncio.to_thread(work)


def _readable(line: bytes) -> Run:
    try:
        return Run.model_validate_json(line)
    except ValidationError:
        raise PlatformError(
            "the run was written by a version of distill that this one cannot read", code="run_unreadable"
        ) from None


def _check_feedback(request: FeedbackRequest) -> None:
    if (request.run_id is None) == (request.episode_id is None):
        raise InvalidRequest("name either `run_id` or `episode_id`, and not both", param="run_id")
    value = request.value
    expected = {
        "boolean": ("true or false", isinstance(value, bool)),
        "float": ("a number", isinstance(value, int | float) and not isinstance(value, bool)),
        "comment": ("a text that is not empty", isinstance(value, str) and bool(value.strip())),
        "demonstration": ("the corrected output", value is not None),
    }
    what, fits = expected[request.kind]
    if not fits:
        raise InvalidRequest(f"`value` of a {request.kind} is {what}", param="value")
