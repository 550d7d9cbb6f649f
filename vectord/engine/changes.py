"""What the audit log is told: who may see what, and what collections are, before either changes."""

import hashlib
from collections.abc import Callable
from typing import Any, Final

from schemas.vectors import RoleCatalogue
from services import context
from services.audit import AuditLog, Change
from vectord.engine.disk import Manifest

Tell = Callable[[], None]
"""Puts a line on the medium; it blocks. Raises `Unavailable`: then the change is not made."""

UNNAMED: Final = "unnamed"
"""Who asked past the gateway, which alone knows keys."""

RULES_TOLD_MAX: Final = 1000
"""Rules of a catalogue that one line lists; of further ones it has the number."""

Rule = tuple[str, str, str]


class Changes:
    """Makes the lines. Call a method where the request is known, and what it returns off the event loop."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    def roles_replaced(self, before: RoleCatalogue, after: RoleCatalogue) -> Tell:
        """By the rules that went and those that came: a role, another name of one, one that it may see."""
        return self._line("roles_replaced", "roles", lambda: _difference(before, after))

    def created(self, name: str, manifest: Manifest) -> Tell:
        return self._line("collection_created", name, lambda: {"to": _facts(manifest)})

    def restored(self, name: str, manifest: Manifest, source: dict[str, str]) -> Tell:
        """`source` says which snapshot it was."""
        return self._line("collection_restored", name, lambda: {"to": _facts(manifest), "source": source})

    def moved(self, name: str, before: Manifest, after: Manifest) -> Tell:
        """To another engine, or to vectors of another model: only what differs is told."""
        old, new = _facts(before), _facts(after)
        differ = [key for key in new if old[key] != new[key]]
        return self._changed(name, {key: old[key] for key in differ}, {key: new[key] for key in differ})

    def tuned(self, name: str, before: int | None, after: int) -> Tell:
        return self._changed(name, {"ef": before}, {"ef": after})

    def deleted(self, name: str, manifest: Manifest) -> Tell:
        return self._line("collection_deleted", name, lambda: {"from": _facts(manifest)})

    def _changed(self, name: str, before: dict[str, Any], after: dict[str, Any]) -> Tell:
        return self._line("collection_changed", name, lambda: {"from": before, "to": after})

    def _line(self, change: Change, subject: str, detail: Callable[[], dict[str, Any]]) -> Tell:
        """`detail` is called off the event loop, too: a catalogue may have a million rules."""
        request = context.current()
        by = (request and request.principal) or UNNAMED
        request_id = request.request_id if request else None
        return lambda: self._log.append(change, subject, by, detail(), request_id=request_id)


def _facts(manifest: Manifest) -> dict[str, Any]:
    spec = manifest.spec
    return {
        "gated": spec.gated,
        "hybrid": spec.hybrid,
        "distance": spec.distance,
        "engine": manifest.engine,
        "dimension": manifest.dimension,
        "model": spec.model,
        "model_digest": manifest.model_digest,
    }


def _difference(before: RoleCatalogue, after: RoleCatalogue) -> dict[str, Any]:
    old, new = _rules(before), _rules(after)
    return {
        "from": _stamp(before),
        "to": _stamp(after),
        "removed": _told(old - new),
        "added": _told(new - old),
    }


def _stamp(catalogue: RoleCatalogue) -> dict[str, Any]:
    sha256 = hashlib.sha256(catalogue.model_dump_json().encode()).hexdigest()
    return {"roles": len(catalogue.roles), "sha256": sha256}


def _rules(catalogue: RoleCatalogue) -> set[Rule]:
    return {
        rule
        for role in catalogue.roles
        for rule in (
            (role.name, "role", role.name),
            *((role.name, "alias", alias) for alias in role.aliases),
            *((role.name, "sees", other) for other in role.compatible),
        )
    }


def _told(rules: set[Rule]) -> dict[str, Any]:
    listed = sorted(rules)[:RULES_TOLD_MAX]
    told: dict[str, Any] = {
        "count": len(rules),
        "rules": [
            {"role": role} if kind == "role" else {"role": role, kind: other} for role, kind, other in listed
        ],
    }
    return told
