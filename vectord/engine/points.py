"""Points on their way in, checked one by one so that an error names the one that is wrong; and out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from schemas.vectors import Part, Point, StoredPoint
from services.errors import InvalidRequest
from vectord.backends import Record
from vectord.engine.disk import Manifest
from vectord.engine.embedding import model_of
from vectord.engine.limits import Limits, at_most, check_payload, check_text, checked_vector
from vectord.engine.roles import Roles, normal_form

FLOAT_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Draft:
    """A point that passed; `vector` is None where its text is still to be embedded.

    `bytes` is its size: the vector, the text, and the payload as JSON.
    """

    point: Point
    vector: Sequence[float] | None
    role_key: str | None
    bytes: int

    def record(self, embedded: Sequence[float] | None) -> Record:
        vector = self.vector if self.vector is not None else embedded
        assert vector is not None
        point = self.point
        return Record(point.id, vector, point.text, point.role, self.role_key, point.payload)


@dataclass(frozen=True, slots=True)
class Rules:
    """What points must be to enter a collection, from this caller."""

    manifest: Manifest
    roles: Roles
    limited_to: Sequence[str] | None
    limits: Limits


def check_points(points: Sequence[Point], rules: Rules) -> list[Draft]:
    """All points as drafts. Raises 400 (or 403 for a role out of the key's reach) for the first bad one."""
    at_most("points", len(points), rules.limits.points_max, param="points")
    drafts = []
    seen: set[str | int] = set()
    for number, point in enumerate(points):
        where = f"points.{number}"
        if point.id in seen:
            raise InvalidRequest(f"the id {point.id!r} comes twice in this call", param=f"{where}.id")
        seen.add(point.id)
        drafts.append(_draft(point, rules, where))
    return drafts


def _draft(point: Point, rules: Rules, where: str) -> Draft:
    manifest, roles, limits = rules.manifest, rules.roles, rules.limits
    size = FLOAT_BYTES * manifest.dimension
    if point.text is not None:
        size += check_text(point.text, limits, param=f"{where}.text")
    size += check_payload(dict(point.payload), limits, param=f"{where}.payload")
    vector = None
    if point.vector is not None:
        vector = checked_vector(
            point.vector, manifest.dimension, manifest.spec.distance, param=f"{where}.vector"
        )
    else:
        model_of(manifest.spec, param=f"{where}.vector")
        if not point.text:
            raise InvalidRequest("an empty text has no vector", param=f"{where}.text")
    role_key = None
    if manifest.spec.gated or point.role is not None:
        canonical = roles.require(point.role, param=f"{where}.role")
        roles.permit(canonical, rules.limited_to, param=f"{where}.role")
        role_key = normal_form(point.role or "")
    return Draft(point, vector, role_key, size)


def stored(record: Record, parts: Sequence[Part]) -> StoredPoint:
    """A point on its way out, with the parts that were asked for."""
    return StoredPoint(
        id=record.id,
        role=record.role,
        text=record.text if "text" in parts else None,
        payload=record.payload if "payload" in parts else None,
        vector=list(record.vector) if "vector" in parts else None,
    )
