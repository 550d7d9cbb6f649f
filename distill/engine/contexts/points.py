"""From evidence to points: what a piece of accepted work looks like in the index."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from distill.engine.contexts.groups import Groups
from distill.engine.contexts.retrieval import storable
from distill.engine.episodes import is_replay
from distill.engine.exports.rowing import Maker
from distill.engine.exports.targets import Unfit
from distill.engine.library import Item, Shard, opened
from schemas.distill import JobRequest
from schemas.vectors import IndexKind, Point

FINGERPRINT: Final = "fingerprint"
PAYLOAD_INDEXES: Final[dict[str, IndexKind]] = {
    "evidence_id": "keyword",
    "group": "keyword",
    "order": "keyword",
    "episode": "keyword",
    "kind": "keyword",
}
SAMPLE: Final = ("rag", "stillhouse")
"""The kind and target of an export whose rows are what is indexed."""


@dataclass(frozen=True, slots=True)
class PointsTask:
    """A shard to make points of. `stamp` tells this state of the library from others."""

    library: Path
    stamp: str
    shard: Shard
    options: JobRequest


@dataclass(slots=True)
class Drafts:
    """The points of a shard, still without their groups, and how many pieces were left out, by reason.

    `roles` are those of all evidence in it, so that what was indexed once is found again.
    """

    points: list[Point] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    roles: set[str] = field(default_factory=set)


def draft_points(task: PointsTask) -> Drafts:
    """Turn what is accepted in a shard into points, as the rag export turns it into rows."""
    library = opened(task.library, task.stamp)
    kind, target = SAMPLE
    maker = Maker(library, task.options.model_copy(update={"kind": kind, "target": target}), None)
    drafts = Drafts()
    for item in task.shard.read():
        if (role := item.evidence.get("role")) is not None:
            drafts.roles.add(role)
        try:
            drafts.points.append(_draft(item, maker))
        except Unfit as unfit:
            drafts.reasons[unfit.code] += 1
    return drafts


def _draft(item: Item, maker: Maker) -> Point:
    if is_replay(item.evidence):
        raise Unfit("source.replay", "the evidence comes from a replay")
    made = maker.made(item)
    assert made is not None
    line, _ = maker.line(made)
    evidence, row = item.evidence, orjson.loads(line)
    _require_one_role(evidence)
    task = evidence.get("task") or {}
    payload = {
        "evidence_id": item.id,
        "kind": storable(task.get("kind")),
        "order": storable(task.get("key")),
        "episode": storable(evidence.get("episode_id")),
    }
    return Point(
        id=item.id,
        text=f"{row['query']}\n\n{row['text']}",
        role=evidence.get("role"),
        payload={name: value for name, value in payload.items() if value is not None},
    )


def _require_one_role(evidence: dict[str, Any]) -> None:
    """Raise `Unfit` for work that stands behind several roles: no gate could say who may see it."""
    behind = {text["role"] for text in evidence["input"].get("retrieved_context") or ()} - {None}
    if evidence.get("role") is None and behind:
        raise Unfit("role.several", "the answer was made from texts of several job roles")


def with_groups(points: Iterable[Point], groups: Groups) -> list[Point]:
    """The points as they are stored: with their groups, and a fingerprint of everything in them."""
    return [_finished(point, groups) for point in points]


def _finished(point: Point, groups: Groups) -> Point:
    payload = {**point.payload, "group": groups.of(str(point.id))}
    said = orjson.dumps([point.text, payload], option=orjson.OPT_SORT_KEYS)
    fingerprint = hashlib.sha256(said).hexdigest()[:16]
    return point.model_copy(update={"payload": {**payload, FINGERPRINT: fingerprint}})
