"""A replay from its selection to its folder: bounded, resumable, and the same again from a cassette.

What is done lies in a journal until the end, so a replay that was stopped goes on where it was. The folder's
manifest comes last: it says that the replay is finished.
"""

import asyncio
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, get_args

import orjson

from distill.engine.contexts import Contexts, Groups
from distill.engine.library import Library
from distill.engine.log import Log
from distill.engine.metrics import Metrics
from distill.engine.places import MANIFEST, REPLAYS, TASKS
from distill.engine.pool import Pool
from distill.engine.products import QUARANTINE, ProductWriter
from distill.engine.progress import Progress
from distill.engine.receipts import Receipts, material_of, product_of
from distill.engine.replay import results
from distill.engine.replay.budget import Budget
from distill.engine.replay.doing import Arm, Worker
from distill.engine.replay.options import ARM, SELECTION, ReplaySettings, identity
from distill.engine.replay.results import Fingerprint, Result
from distill.engine.replay.store import Key, Store
from distill.engine.replay.tape import Tape, cassette_of
from distill.engine.replay.tasks import LeftOut, selected, task_of
from distill.engine.shards import FOLDER
from schemas.canonical import canonical_bytes
from schemas.evidence import ProductFile, Quarantined, Source
from schemas.proof import ReceiptRef
from schemas.replay import Replay, ReplayArm, ReplayManifest, ReplayOptions, ReplayOutcome
from services import files, ids
from services.errors import (
    Conflict,
    InvalidRequest,
    Overloaded,
    PlatformError,
    Unavailable,
    UpstreamError,
    UpstreamTimeout,
)
from services.tasks import task_set

BEYOND: Final = LeftOut("budget", "the budget was used up before")
JOURNAL: Final = "journal"
PLAN: Final = "plan.json"
DONE: Final = "done.jsonl"

TRIES: Final = 3
PAUSE_S: Final = 1.0
FAILURES_MAX: Final = 5
"""Tasks in a row that may fail for their provider's sake; more of them, and it is the provider."""
POLL_S: Final = 0.2
PREPARED: Final = 0.1
"""The part of the progress that the preparations are."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """A finished replay, and the receipt of the run that finished it."""

    manifest: ReplayManifest
    receipt: ReceiptRef


@dataclass(frozen=True, slots=True)
class Place:
    """Where a replay works: the data folder, the log in it, and what counts its work."""

    data: Path
    log: Log
    metrics: Metrics


def replay(
    place: Place, options: ReplayOptions, settings: ReplaySettings, pool: Pool, progress: Progress
) -> Replayed:
    """Do what `options`, which were `checked`, ask for. Blocks, in an event loop of its own.

    Raises `Conflict` when a stage before is missing, a cassette lacks an answer, or something that shapes
    answers changed in between; what peers fail with; and `Stopped`. The same call then goes on.
    """
    started_at = datetime.now(UTC)
    Receipts(place.data).prepare()
    library = Library(place.data / FOLDER)
    library.require()
    groups = Groups.of_library(place.data, pool, progress, end=PREPARED / 2)
    with ExitStack() as stack:
        run = _Run(place, options, library, groups, progress)
        run.open(settings, stack)
        asyncio.run(run.work(settings, run.cassette(settings, stack)))
        manifest = run.finish()
    receipt = run.sign(manifest, started_at)
    run.forget()
    return Replayed(manifest, receipt)


class _Run:
    """The steps of one replay, in their order."""

    def __init__(
        self, place: Place, options: ReplayOptions, library: Library, groups: Groups, progress: Progress
    ) -> None:
        self._place = place
        self._options = options
        self._library = library
        self._groups = groups
        self._progress = progress
        self._identity = identity(options)
        self._id = options.name or f"replay-{self._identity[:16]}"
        self._folder = place.data / REPLAYS / self._id
        self._fingerprint = Fingerprint(options.recorded)
        self._budget = Budget(options)
        self._left: dict[Key, LeftOut] = {}
        self._failures = 0

    # --- where it was -------------------------------------------------------------------------

    def open(self, settings: ReplaySettings, stack: ExitStack) -> None:
        """Take up what an unfinished run of the same replay left, or begin."""
        journal = self._folder / JOURNAL
        if self._options.fresh:
            shutil.rmtree(journal, ignore_errors=True)
        plan = self._plan(journal)
        self._tasks: list[str] = plan["tasks"]
        self._arm = Arm(self._id, self._name(), plan["execution"])
        self._units = [(one, repeat) for one in self._tasks for repeat in range(self._options.repeats)]
        store = Store(journal / DONE, results.key_of, bytes_max=settings.store_bytes_max)
        self._done = stack.enter_context(store)
        for line in self._done.sorted():
            result = Result.from_line(line)
            self._fingerprint.add(result.seen)
            self._budget.settle(result.calls, result.record.usage)

    def _plan(self, journal: Path) -> dict[str, Any]:
        path = journal / PLAN
        if path.exists():
            plan: dict[str, Any] = orjson.loads(path.read_bytes())
            if plan["identity"] != self._identity:
                raise Conflict(
                    f"replay {self._id!r} was left unfinished with other options; finish it with those, begin"
                    " anew with `fresh`, or choose another `name`",
                    code="replay_unfinished",
                    param="name",
                )
            return plan
        tasks = selected(self._place.data, self._library, self._options, self._progress, end=PREPARED)
        if not tasks:
            raise Conflict("no recorded task is like that", code="nothing_to_replay")
        calls = not self._options.recorded and self._options.mode != "cassette"
        plan = {"identity": self._identity, "execution": ids.uuid7() if calls else "", "tasks": tasks}
        journal.mkdir(parents=True, exist_ok=True)
        files.replace(path, orjson.dumps(plan))
        return plan

    def _name(self) -> str:
        options = self._options
        if options.recorded or options.models is None:
            return "recorded"
        shown = f" + {options.contexts} of {options.collection}" if options.contexts else ""
        return f"{' → '.join(options.models)}{shown}"

    def cassette(self, settings: ReplaySettings, stack: ExitStack) -> Store | None:
        if self._options.mode == "live":
            return None
        store = cassette_of(self._place.data, self._options.cassette, bytes_max=settings.store_bytes_max)
        return stack.enter_context(store)

    # --- the work -----------------------------------------------------------------------------

    async def work(self, settings: ReplaySettings, cassette: Store | None) -> None:
        """Do every task that is not done yet and that the budget allows."""
        options = self._options
        tape = Tape(options.mode, options.cassette, cassette)
        async with settings.peers() as peers:
            worker = Worker(
                arm=self._arm,
                options=options,
                tape=tape,
                peers=peers,
                groups=self._groups,
                contexts=Contexts(
                    self._library,
                    self._groups,
                    peers.vectord,
                    collection=options.collection,
                    counter=self._place.metrics.contexts_caught,
                ),
                metrics=self._place.metrics,
            )
            await self._all(worker)
        if options.mode == "refresh" and cassette is not None:
            cassette.compact()

    async def _all(self, worker: Worker) -> None:
        waiting = iter([unit for unit in self._units if unit not in self._done])
        # From a cassette nothing is won by several at a time, and what a budget allows is the same each time.
        at_once = 1 if self._options.mode == "cassette" else self._options.concurrency
        running: dict[asyncio.Task[Result | PlatformError | LeftOut], Key] = {}
        async with task_set() as tasks:
            while True:
                while len(running) < at_once and self._budget.may_begin and (unit := next(waiting, None)):
                    self._budget.under_way += 1
                    running[tasks.start(self._one(worker, unit), name="replayed task")] = unit
                if not running:
                    return
                ended, _ = await asyncio.wait(running, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    self._budget.under_way -= 1
                    self._settle(running.pop(task), task.result())
                self._progress.reach(
                    len(self._done) + len(self._left), len(self._units), start=PREPARED, end=0.99
                )

    async def _one(self, worker: Worker, unit: Key) -> Result | PlatformError | LeftOut:
        """What became of one task; a failure that may pass is met with patience."""
        task = task_of(unit[0], self._library, self._groups, self._place.log)
        if task is None:
            return LeftOut("evidence_gone", "the task is evidence no more")
        for number in range(1, TRIES + 1):
            try:
                return await worker.do(task, unit[1])
            except LeftOut as left:
                return left
            except (Overloaded, Unavailable, UpstreamError, UpstreamTimeout) as error:
                if number == TRIES:
                    return error
                await asyncio.sleep(error.retry_after_s or PAUSE_S * number)
            except PlatformError as error:
                return error
        raise AssertionError("the last try returns")

    def _settle(self, unit: Key, result: Result | PlatformError | LeftOut) -> None:
        """Keep what became of a task. Raises what nobody can go on from."""
        if isinstance(result, Result):
            self._failures = 0
            self._fingerprint.add(result.seen)
            self._done.put(result.line())
            self._budget.settle(result.calls, result.record.usage)
        elif isinstance(result, LeftOut):
            self._left[unit] = result
        elif isinstance(result, InvalidRequest):
            self._left[unit] = LeftOut(f"refused.{result.code}", "the task was refused as it is")
        elif isinstance(result, Overloaded | UpstreamError | UpstreamTimeout):
            self._failures += 1
            if self._failures >= FAILURES_MAX:
                raise result
            self._left[unit] = LeftOut(f"failed.{result.code}", "its provider failed each time")
        else:
            raise result

    # --- the end ------------------------------------------------------------------------------

    def finish(self) -> ReplayManifest:
        """Write the products, the manifest last. Raises `Conflict` when there is no result at all."""
        if not self._done:
            reasons = Counter(left.reason for left in self._left.values())
            listed = ", ".join(f"{count} × {reason}" for reason, count in sorted(reasons.items()))
            raise Conflict(f"no task could be done again: {listed}", code="nothing_replayed")
        for path in self._folder.glob(f"*{MANIFEST}*"):  # what a kill left of one goes too
            path.unlink()
        products = [self._write_tasks(), self._write_left_out()]
        manifest = self._manifest(products)
        files.replace(self._folder / MANIFEST, canonical_bytes(manifest.model_dump(mode="json")) + b"\n")
        return manifest

    def _write_tasks(self) -> ProductFile:
        self._outcomes: Counter[str] = Counter(dict.fromkeys(get_args(ReplayOutcome), 0))
        self._prompts: list[str] = []
        with ProductWriter(self._folder / TASKS) as writer:
            for result in self._results():
                writer.write(result.record)
                self._outcomes[result.record.outcome] += 1
                self._prompts.append(result.prompt)
            return writer.finish()

    def _results(self) -> Iterator[Result]:
        return (Result.from_line(line) for line in self._done.sorted())

    def _write_left_out(self) -> ProductFile:
        self._reasons: Counter[str] = Counter()
        with ProductWriter(self._folder / QUARANTINE) as writer:
            for unit in sorted(unit for unit in self._units if unit not in self._done):
                left = self._left.get(unit, BEYOND)
                self._reasons[left.reason] += 1
                writer.write(
                    Quarantined(
                        reason=left.reason,
                        detail=left.detail,
                        source=self._source(unit[0]),
                        evidence_id=unit[0],
                    )
                )
            return writer.finish()

    def _source(self, evidence_id: str) -> Source:
        item = self._library.item(evidence_id)
        if item is None:  # evidence that is gone is known by its id alone
            nothing = "0" * 64
            return Source(
                kind="unknown", key=evidence_id, segment="", offset=0, length=0, line_sha256=nothing
            )
        return Source.model_validate(item.evidence["source"])

    def _manifest(self, products: Sequence[ProductFile]) -> ReplayManifest:
        options, spent = self._options, self._budget.spent
        arm = options.model_dump(mode="json", include=ARM)
        arm["models"] = options.models or []
        arm["collection"] = options.collection if options.contexts else None
        return ReplayManifest(
            replay_id=self._id,
            name=self._arm.name,
            mode="recorded" if options.recorded else options.mode,
            cassette=None if options.mode == "live" else options.cassette,
            arm=ReplayArm.model_validate(arm),
            selection=options.model_dump(mode="json", include=SELECTION, exclude_none=True),
            repeats=options.repeats,
            fingerprint=self._fingerprint.told(options.models or [], self._prompts),
            counts={
                "in": len(self._units),
                **self._outcomes,
                "quarantined": self._reasons.total(),
            },
            left_out=dict(sorted(self._reasons.items())),
            spent={"calls": spent.calls, "tokens": spent.tokens, "cost_usd": spent.cost_usd},
            files=[*products],
        )

    def sign(self, manifest: ReplayManifest, started_at: datetime) -> ReceiptRef:
        """Vouch for the products."""
        data = self._place.data
        library = [shard.evidence for shard in self._library.shards()]
        names = (MANIFEST, *(file.name for file in manifest.files))
        products = [product_of(data, self._folder / name) for name in names]
        return (
            Receipts(data)
            .write(
                "replay",
                materials=[material_of(data, path) for path in library],
                products=products,
                counts=manifest.counts,
                config=self._options.model_dump(mode="json"),
                schema_versions={one.schema_id: one.version for one in (Replay, Quarantined)},
                started_at=started_at,
                policy_version=manifest.fingerprint["policy"],
                seed=self._options.seed,
            )
            .ref
        )

    def forget(self) -> None:
        """Remove what is needed no more, unless a larger budget may let the rest be done."""
        if not self._reasons[BEYOND.reason]:
            shutil.rmtree(self._folder / JOURNAL)
