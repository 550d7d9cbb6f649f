"""What one caller may see of one collection: asked of the index, and again of every hit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from schemas.vectors import Filter, PointId, PointSelector, RetrieveRequest, SearchRequest
from vectord.backends import Record, Scored, Where
from vectord.engine.limits import Limits, at_most, check_filter
from vectord.engine.metrics import Metrics
from vectord.engine.opened import Opened
from vectord.engine.roles import Grant, Roles

log = structlog.get_logger(__name__)

Limited = Sequence[str] | None
"""The roles that the caller's key is limited to; None means that it is not."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What one caller may see of one collection: `where` for the index, `admits` for every hit."""

    collection: str
    gated: bool
    grant: Grant | None
    roles: Roles
    where: Where

    def reason_against(self, record: Record) -> str | None:
        """Why the record must not be shown, or None when it may be."""
        return self.reason_against_role(record.role)

    def reason_against_role(self, role: str | None) -> str | None:
        """The same, of a point of which nothing else has to be known."""
        if self.grant is None or (role is None and not self.gated):
            return None
        canonical = self.roles.canonical(role)
        if canonical is None:
            return "role_unknown"
        return None if canonical in self.grant.visible else "role_mismatch"


@dataclass(frozen=True, slots=True)
class Checked:
    """Hits that passed the gate, and those that the index let through and the gate did not."""

    hits: list[Scored]
    dropped: list[tuple[Record, str]]


def pass_for(
    opened: Opened,
    roles: Roles,
    limited: Limited,
    limits: Limits,
    *,
    role: str | None,
    filter_: Filter | None = None,
    ids: Sequence[PointId] | None = None,
) -> Pass:
    """Decide what the caller may see. Every way to a point leads through here.

    Raises 400 without a role on a gated collection, or with an unknown one anywhere; 403 for a role
    that the key may not ask for. On a collection that is not gated a role only narrows: points of
    other roles are left out.
    """
    check_filter(filter_)
    if ids is not None:
        at_most("ids", len(ids), limits.points_max, param="ids")
    gated = opened.spec.gated
    if not gated and role is None:
        return Pass(opened.name, gated, None, roles, Where(filter_, ids))
    grant = roles.grant(role, limited)
    scope = roles.scope(grant, without_role=not gated)
    return Pass(opened.name, gated, grant, roles, Where(filter_, ids, scope))


class Gatekeeper:
    """Lets callers in by the catalogue of the moment, and looks at what they are about to be shown."""

    def __init__(self, roles: Callable[[], Roles], *, limits: Limits, metrics: Metrics) -> None:
        self._roles = roles
        self._limits = limits
        self._metrics = metrics

    def admit(
        self, opened: Opened, request: PointSelector | SearchRequest | RetrieveRequest, limited: Limited
    ) -> Pass:
        """`pass_for` what was asked."""
        ids = request.ids if isinstance(request, PointSelector) else None
        return pass_for(
            opened, self._roles(), limited, self._limits, role=request.role, filter_=request.filter, ids=ids
        )

    def check(self, gate: Pass, hits: Sequence[Scored]) -> Checked:
        """The second look: what the index should not have let through stops here, loudly."""
        passed, dropped = [], []
        for hit in hits:
            reason = gate.reason_against(hit.record)
            if reason is None:
                passed.append(hit)
            else:
                dropped.append((hit.record, reason))
        if dropped:
            self._metrics.leaks.inc(len(dropped))
            log.error("gate stopped a leak", collection=gate.collection, hits=len(dropped))
        return Checked(passed, dropped)
