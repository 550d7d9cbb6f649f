"""Earlier work for a task, never of its own group: asked for so, and checked again on every passage."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import prometheus_client
import structlog

from distill.engine.contexts.groups import Groups
from distill.engine.exports import near, samples
from distill.engine.exports.rowing import said_in
from distill.engine.library import Item, Library
from schemas.vectors import Condition, Filter, RetrievedHit, RetrieveRequest
from services.clients import VectordClient
from services.errors import Conflict, InvalidRequest

log = structlog.get_logger(__name__)

COLLECTION: Final = "distilled"
OPEN: Final = "-open"
KEYS: Final = ("group", "order", "episode")
"""What a point says of what it belongs to, beside its `evidence_id`; see `Relations`."""
QUERY_CHARS_MAX: Final = 8000
"""Models cut off longer questions anyway."""
ROUNDS_MAX: Final = 4
"""How often vectord is asked again when the second check takes passages out: the index is behind then."""
ASKED_MAX: Final = 100
KNOWN_MAX: Final = 1024
"""Pieces of evidence that are remembered: the same good examples are found for many tasks."""
EVIDENCE_ID: Final = re.compile(r"[0-9a-f]{64}")
NOTHING: Final = near.shingles(b"")


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of earlier work. `text` is what was asked, an empty line, and the answer; `score` vectord's."""

    evidence_id: str
    group: str
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Relations:
    """What a piece of evidence belongs to: its group, and what it shares with others by name."""

    evidence_id: str
    group: str | None
    order: str | None
    episode: str | None

    @classmethod
    def of(cls, item: Item, groups: Groups) -> "Relations":
        task = item.evidence.get("task") or {}
        return cls(
            item.id, groups.of(item.id), storable(task.get("key")), storable(item.evidence.get("episode_id"))
        )

    def others(self, excluded: Sequence[str]) -> Filter:
        """The filter that leaves out whatever belongs to it, and the pieces that are `excluded`."""
        named = [Condition(key=key, match=value) for key in KEYS if (value := getattr(self, key)) is not None]
        return Filter(must_not=[*named, Condition(key="evidence_id", any=[self.evidence_id, *excluded])])


@dataclass(frozen=True, slots=True)
class _Sought:
    """A task that passages are wanted for. `shingles` are those of its question and recorded answer."""

    relations: Relations
    role: str | None
    query: str
    shingles: near.Hashes


def open_name(collection: str) -> str:
    """The collection beside a gated one, for work that stands behind no role."""
    return f"{collection}{OPEN}"


def storable(text: str | None) -> str | None:
    """The text with half characters, which no JSON can carry, replaced; None for none."""
    return text.encode("utf-8", "replace").decode() if text else None


class Contexts:
    """Finds passages for tasks, by the evidence and groups as they stand. For one event loop.

    Work behind a role is found for tasks of that role and of ones that the catalogue lets see it; work behind
    no role for every task. `caught` counts what the index let through and the second check did not:
    `own_group`, `near_duplicate` of the task, and `unknown`, which is evidence no more.
    """

    def __init__(
        self,
        library: Library,
        groups: Groups,
        vectord: VectordClient,
        *,
        collection: str = COLLECTION,
        counter: prometheus_client.Counter | None = None,
    ) -> None:
        self.caught: Counter[str] = Counter()
        self._library = library
        self._groups = groups
        self._vectord = vectord
        self._collection = collection
        self._counter = counter
        self._there: list[str] | None = None
        self._known = lru_cache(KNOWN_MAX)(self._look_up)

    async def retrieve(self, item: Item, k: int) -> list[Passage]:
        """Up to `k` passages, the best first, none of the task's own group.

        Raises `Conflict` when nothing was ever indexed, and what vectord fails with.
        """
        sought = self._sought(item)
        if not sought.query.strip():
            return []
        excluded: list[str] = []
        passages: list[Passage] = []
        for number in range(ROUNDS_MAX):
            hits = await self._ask(sought, min(k << number, ASKED_MAX), excluded)
            passages, dropped = self._checked(sought, hits)
            if not dropped:
                break
            log.info("passages held back", collection=self._collection, passages=len(dropped))
            if len(passages) >= k:
                break
            excluded += dropped
        return passages[:k]

    def _sought(self, item: Item) -> _Sought:
        first = self._library.first(item) or item
        query = storable(samples.question_text(first)[:QUERY_CHARS_MAX]) or ""
        shingles = near.shingles(near.masked(said_in(first, item)))
        return _Sought(Relations.of(item, self._groups), item.evidence.get("role"), query, shingles)

    # --- asking -------------------------------------------------------------------------------

    async def _ask(self, sought: _Sought, k: int, excluded: Sequence[str]) -> list[RetrievedHit]:
        there = await self._collections()
        if sought.role is not None:
            try:
                return await self._hits(sought, there, sought.role, k, excluded)
            except InvalidRequest as error:
                if error.code != "role_unknown":
                    raise
        # Without a role, or with one that the catalogue knows no more: only what stands behind none.
        behind_none = [name for name in there if name != self._collection]
        return await self._hits(sought, behind_none, None, k, excluded) if behind_none else []

    async def _hits(
        self, sought: _Sought, collections: list[str], role: str | None, k: int, excluded: Sequence[str]
    ) -> list[RetrievedHit]:
        request = RetrieveRequest(
            query=sought.query,
            collections=collections,
            role=role,
            k=k,
            filter=sought.relations.others(excluded),
        )
        return (await self._vectord.retrieve(request)).hits

    async def _collections(self) -> list[str]:
        if self._there is None:
            wanted = (self._collection, open_name(self._collection))
            known = {one.name for one in (await self._vectord.collections()).collections}
            self._there = [name for name in wanted if name in known]
        if not self._there:
            raise Conflict(
                f"there is no collection `{self._collection}`; run the stage `index` first",
                code="index_missing",
            )
        return self._there

    # --- checking -----------------------------------------------------------------------------

    def _checked(self, sought: _Sought, hits: Sequence[RetrievedHit]) -> tuple[list[Passage], list[str]]:
        """The passages that are none of the task's group, and the ids of the hits that were taken out.

        Goes by the evidence, not by what the points say: they may be older. A near duplicate that the groups
        do not know of, since the task itself is no evidence perhaps, gives away its whole group.
        """
        groups = {str(hit.id): self._group_of(hit) for hit in hits}
        near_ones = {
            groups[str(hit.id)] for hit in hits if groups[str(hit.id)] and self._is_near(sought, hit)
        }
        passages: list[Passage] = []
        dropped: list[str] = []
        for hit in hits:
            name = str(hit.id)
            group = groups[name]
            if group is not None and group not in {sought.relations.group, *near_ones}:
                passages.append(Passage(name, group, hit.text or "", hit.score))
                continue
            dropped.append(name)
            own = "own_group" if group == sought.relations.group else "near_duplicate"
            self._count("unknown" if group is None else own)
        return passages, dropped

    def _group_of(self, hit: RetrievedHit) -> str | None:
        name = str(hit.id)
        return self._groups.of(name) if EVIDENCE_ID.fullmatch(name) else None

    def _is_near(self, sought: _Sought, hit: RetrievedHit) -> bool:
        """Whether a hit shares an order or episode with the task, or says nearly the same."""
        other, shingles = self._known(str(hit.id))
        task = sought.relations
        if other is None or (task.order and task.order == other.order):
            return True
        if task.episode and task.episode == other.episode:
            return True
        said = near.shingles(near.masked(hit.text or ""))
        return near.alike(sought.shingles, shingles) or near.alike(sought.shingles, said)

    def _look_up(self, evidence_id: str) -> tuple[Relations | None, near.Hashes]:
        item = self._library.item(evidence_id)
        if item is None:
            return None, NOTHING
        first = self._library.first(item) or item
        return Relations.of(item, self._groups), near.shingles(near.masked(said_in(first, item)))

    def _count(self, reason: str) -> None:
        self.caught[reason] += 1
        if self._counter is not None:
            self._counter.labels(reason).inc()
