"""Recorded tasks: which ones are meant, and what there is to be done again for each."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import TypeAdapter, ValidationError

from distill.engine import datasets, times
from distill.engine.contexts import Groups
from distill.engine.episodes import is_replay
from distill.engine.index import Owner
from distill.engine.library import CHAIN_MAX, Item, Library
from distill.engine.log import Log
from distill.engine.places import DATASETS, MANIFEST, REPLAYS, TASKS
from distill.engine.progress import Progress
from distill.engine.sources import OWN
from schemas.base import JsonObject
from schemas.chat import ChatMessage
from schemas.iterate import GivenNote
from schemas.replay import ReplayOptions
from schemas.runs import VerdictRecord
from services.errors import NotFound

CONTEXT_FREE: Final = frozenset({"email", "sms"})
"""Kinds that can be judged with nothing known around the artifact."""
SYSTEM: Final = ("system", "developer")

NOTE: Final = ("collection", "id", "role", "score", "text")

MESSAGES: Final = TypeAdapter(list[ChatMessage])


class LeftOut(Exception):
    """A task that cannot be done again. `reason` is a code, `detail` a sentence without the task's words."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Judging:
    """What an answer is judged by. `system_chars` of the system message were the caller's own words; None
    where all of it was. `worker_ids` are those whom the retrieved texts are about.
    """

    kind: str
    context: JsonObject
    system_chars: int | None = None
    worker_ids: Sequence[str | None] = ()

    @classmethod
    def said(cls, told: Any) -> "Judging | None":
        """From what a record says in `ext.validate`; None when that is nothing of ours."""
        if not isinstance(told, dict) or not isinstance(kind := told.get("kind"), str) or not kind:
            return None
        context, chars, workers = told.get("context"), told.get("system_chars"), told.get("worker_ids")
        return cls(
            kind,
            context if isinstance(context, dict) else {},
            chars if isinstance(chars, int) else None,
            [one if isinstance(one, str) else None for one in workers] if isinstance(workers, list) else (),
        )


class Task:
    """A recorded task: the first attempt at it, and what followed."""

    def __init__(self, item: Item, library: Library, log: Log, *, group: str, work: str) -> None:
        self.item = item
        self.id = item.id
        self.group = group
        self.work = work
        self._library = library
        self._log = log

    @property
    def role(self) -> str | None:
        role: str | None = self.item.evidence.get("role")
        return role

    @property
    def key(self) -> str | None:
        """The key of the thing that was worked on."""
        key: str | None = (self.item.evidence.get("task") or {}).get("key")
        return key

    def chain(self) -> Iterator[Item]:
        """The recorded attempts in their order."""
        return chain_of(self.item, self._library)

    @cached_property
    def judging(self) -> Judging:
        """Raises `LeftOut` when nobody knows what the answer would have to be judged by."""
        found = self._said() or _derived(self.item.evidence)
        if found is None:
            raise LeftOut(
                "context_unknown", "neither the run nor a verdict on it says what it was validated against"
            )
        return found

    @cached_property
    def messages(self) -> list[ChatMessage]:
        """What the caller asked, without what chatd put around it. Raises `LeftOut`."""
        given = self.item.evidence["input"]
        if given.get("tools"):
            raise LeftOut("has_tools", "tasks with tools are not done again")
        try:
            messages = MESSAGES.validate_python(given["messages"])
        except ValidationError:
            raise LeftOut("messages_unreadable", "the messages are not those of a chat") from None
        messages = _unframed(messages, self.judging.system_chars)
        if not messages:
            raise LeftOut("messages_empty", "there is no message of a caller")
        return messages

    @cached_property
    def notes(self) -> list[GivenNote]:
        """The texts that chatd had retrieved and put before the model, as they were. Raises `LeftOut`."""
        if self.judging.system_chars is None:
            return []  # they stand in the caller's own messages, if anywhere
        texts = self.item.evidence["input"].get("retrieved_context") or []
        workers = [*self.judging.worker_ids, *([None] * len(texts))]
        try:
            return [
                GivenNote.model_validate({**{name: text.get(name) for name in NOTE}, "worker_id": worker_id})
                for text, worker_id in zip(texts, workers, strict=False)
            ]
        except ValidationError:
            raise LeftOut("notes_unreadable", "the retrieved texts are not those of vectord") from None

    def _said(self) -> Judging | None:
        """What the run says, or the latest verdict that came apart from it."""
        for record in self._records():
            if (said := Judging.said((record.get("ext") or {}).get("validate"))) is not None:
                return said
        return None

    def _records(self) -> Iterator[dict[str, Any]]:
        source = self.item.evidence["source"]
        if source["kind"] != OWN:
            return
        if (location := self._log.index.run(source["key"])) is not None:
            yield orjson.loads(self._log.read(location))
        for location in reversed(self._log.index.notes(Owner("run", source["key"]))):
            note = orjson.loads(self._log.read(location))
            if note["schema"] == VerdictRecord.schema_id:
                yield note


def _derived(evidence: dict[str, Any]) -> Judging | None:
    """What can be told from the evidence alone."""
    schema = evidence["input"].get("params", {}).get("response_format")
    schema = schema.get("json_schema") if isinstance(schema, dict) else None
    kind = (evidence.get("verdict") or evidence.get("task") or {}).get("kind")
    if kind in CONTEXT_FREE:
        return Judging(kind, {})
    if kind in (None, "json_schema") and isinstance(schema, dict) and isinstance(schema.get("schema"), dict):
        return Judging("json_schema", {"schema": schema["schema"]})
    return None


def _unframed(messages: list[ChatMessage], system_chars: int | None) -> list[ChatMessage]:
    if system_chars is None or not messages or messages[0].role not in SYSTEM:
        return messages
    first = messages[0]
    if system_chars == 0 or not isinstance(first.content, str):
        return messages[1:]
    return [first.model_copy(update={"content": first.content[:system_chars]}), *messages[1:]]


def chain_of(item: Item, library: Library) -> Iterator[Item]:
    """The attempts from this one on."""
    current: Item | None = item
    for _ in range(CHAIN_MAX):
        if current is None:
            return
        yield current
        after = current.evidence.get("repaired_by")
        current = library.item(after) if after is not None else None


# --- which ones -------------------------------------------------------------------------------


def selected(
    data: Path, library: Library, options: ReplayOptions, progress: Progress, *, end: float
) -> list[str]:
    """The ids of the tasks that are meant, in the order in which they are worked on.

    The order is that of a hash, so that the first of them are a sample of all. Raises `NotFound` for a
    dataset, a replay or evidence that is not there.
    """
    named = _named(data, library, options)
    found = _among(library, named) if named is not None else _scan(library, progress, end)
    fits = _filter(library, options)
    ids = {item.id for item in found if fits(item)}
    return sorted(ids, key=_place)[: options.limit]


def _place(evidence_id: str) -> bytes:
    return hashlib.sha256(b"replay" + bytes.fromhex(evidence_id)).digest()


def _scan(library: Library, progress: Progress, end: float) -> Iterator[Item]:
    """The first attempt of every task that is no replay itself."""
    parts = library.shards()
    for done, shard in enumerate(parts, start=1):
        for item in shard.read():
            if item.evidence.get("repair_of") is None and not is_replay(item.evidence):
                yield item
        progress.reach(done, len(parts), end=end)


def _among(library: Library, ids: Sequence[str]) -> Iterator[Item]:
    """The first attempts of the tasks that these pieces of evidence belong to."""
    for evidence_id in ids:
        item = library.item(evidence_id)
        first = library.first(item) if item is not None else None
        if first is not None and not is_replay(first.evidence):
            yield first


def _named(data: Path, library: Library, options: ReplayOptions) -> list[str] | None:
    """The evidence that the options name, or None where they name none."""
    if options.evidence_ids is not None:
        for evidence_id in options.evidence_ids:
            if not library.has(evidence_id):
                raise NotFound(f"there is no evidence {evidence_id!r}", param="evidence_ids")
        return options.evidence_ids
    if options.like is not None:
        path = data / REPLAYS / options.like / TASKS
        if not (path.parent / MANIFEST).is_file():
            raise NotFound(f"there is no finished replay {options.like!r}", param="like")
        return _ids_in(path)
    if options.dataset is not None:
        datasets.manifest_of(data / DATASETS, options.dataset)
        found = (data / DATASETS / options.dataset).glob(f"{options.split or '*'}.provenance.jsonl")
        return [evidence_id for path in sorted(found) for evidence_id in _ids_in(path)]
    return None


def _ids_in(path: Path) -> list[str]:
    with path.open("rb") as file:
        return [orjson.loads(line)["evidence_id"] for line in file]


def _filter(library: Library, options: ReplayOptions) -> Callable[[Item], bool]:
    def fits(item: Item) -> bool:
        evidence = item.evidence
        kind = (evidence.get("verdict") or evidence.get("task") or {}).get("kind")
        return (
            (options.kind is None or options.kind == kind)
            and (options.role is None or options.role == evidence.get("role"))
            and _within(evidence.get("ts"), options)
            and (options.category is None or _end_of(item, library).category == options.category)
        )

    return fits


def _end_of(item: Item, library: Library) -> Item:
    *_, last = chain_of(item, library)
    return last


def _within(ts: str | None, options: ReplayOptions) -> bool:
    if options.since is None and options.until is None:
        return True
    if ts is None:
        return False
    when = times.read(ts)
    return (options.since is None or options.since <= when) and (
        options.until is None or when < options.until
    )


def task_of(evidence_id: str, library: Library, groups: Groups, log: Log) -> Task | None:
    """A task by its id; None for one that is evidence no more."""
    item = library.item(evidence_id)
    group, work = groups.of(evidence_id), groups.work_of(evidence_id)
    if item is None or group is None or work is None:
        return None
    return Task(item, library, log, group=group, work=work)
