"""Which role a name means, and whose points it may see: the gate's rules, without any storage."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from schemas.vectors import RoleCatalogue
from services.errors import Forbidden, InvalidRequest
from vectord.backends import RoleScope
from vectord.engine.limits import at_most

# These tell roles apart (C# developer, C developer; R&D), so they are not folded like other punctuation.
TELLING: Final = frozenset("#&%@*")
ROLE_CHARS_MAX: Final = 128
"""As long as a name in the catalogue may be."""

PLURALS: Final = (("ies", "y"), ("sses", "ss"), ("ches", "ch"), ("shes", "sh"), ("xes", "x"))
NOT_PLURALS: Final = ("ss", "us", "is")


def normal_form(name: str) -> str:
    """The name as roles are compared: NFKC, case, spaces, punctuation and a simple plural folded.

    Nothing fuzzier: letters of another script that look alike stay different. "" for a name of nothing.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    words = "".join(character if _tells(character) else " " for character in folded).split()
    if not words:
        return ""
    return " ".join([*words[:-1], _singular(words[-1])])


def _tells(character: str) -> bool:
    return character in TELLING or unicodedata.category(character)[0] in "LNMS"


def _singular(word: str) -> str:
    if len(word) <= 3 or word.endswith(NOT_PLURALS):
        return word
    for ending, single in PLURALS:
        if word.endswith(ending):
            return word[: -len(ending)] + single
    return word.removesuffix("s")


def _taken(name: str, holder: str | None, param: str) -> InvalidRequest:
    return InvalidRequest(f"{name!r} already means {holder!r}; a name means one role", param=param)


@dataclass(frozen=True, slots=True)
class Grant:
    """One caller's leave to see: the role as asked, its canonical name, and the canonical ones in sight."""

    role: str
    canonical: str
    visible: frozenset[str]


class Roles:
    """A catalogue, ready to answer. Without one, a name's normal form is its own canonical role."""

    def __init__(self, catalogue: RoleCatalogue) -> None:
        """Raises `InvalidRequest` when two roles share a name, or a compatible one does not exist."""
        self.catalogue = catalogue
        self._canonical: dict[str, str] = {}
        for number, role in enumerate(catalogue.roles):
            if (other := self._claim(role.name, role.name, f"roles.{number}.name")) is not None:
                raise _taken(role.name, other, f"roles.{number}.name")
        for number, role in enumerate(catalogue.roles):
            for place, alias in enumerate(role.aliases):
                param = f"roles.{number}.aliases.{place}"
                if (other := self._claim(alias, role.name, param)) not in (None, role.name):
                    raise _taken(alias, other, param)
        self._visible = {
            role.name: frozenset(
                {role.name}
                | {
                    self._known(other, f"roles.{number}.compatible.{place}")
                    for place, other in enumerate(role.compatible)
                }
            )
            for number, role in enumerate(catalogue.roles)
        }
        self._keys: dict[str, set[str]] = {}
        for key, name in self._canonical.items():
            self._keys.setdefault(name, set()).add(key)

    def _claim(self, name: str, canonical: str, param: str) -> str | None:
        """Let `name` mean `canonical`, unless it means something already: then that is the answer."""
        key = normal_form(name)
        if not key:
            raise InvalidRequest(f"{name!r} names nothing", param=param)
        holder = self._canonical.get(key)
        self._canonical.setdefault(key, canonical)
        return holder

    def _known(self, name: str, param: str) -> str:
        canonical = self._canonical.get(normal_form(name))
        if canonical is None:
            raise InvalidRequest(f"{name!r} is no role of this catalogue", param=param)
        return canonical

    def canonical(self, name: str | None) -> str | None:
        """The role that `name` means, or None when it means none (any more)."""
        key = normal_form(name or "")
        return self._canonical.get(key) if self.catalogue.roles else key or None

    def require(self, name: str | None, *, param: str) -> str:
        """The canonical role of `name`. Raises 400 `role_required` or `role_unknown`."""
        at_most("characters of a role", len(name or ""), ROLE_CHARS_MAX, param=param)
        if name is None or not normal_form(name):
            raise InvalidRequest(
                "a role is needed here: name one in `role`", code="role_required", param=param
            )
        canonical = self.canonical(name)
        if canonical is None:
            raise InvalidRequest(
                f"{name!r} is no role of the catalogue (GET /v1/roles lists them)",
                code="role_unknown",
                param=param,
            )
        return canonical

    def permit(self, canonical: str, limited_to: Iterable[str] | None, *, param: str) -> None:
        """Raise 403 unless the caller, whose key may be limited to some roles, may act as this one."""
        if limited_to is not None and canonical not in {self.canonical(role) for role in limited_to}:
            raise Forbidden(
                f"this key may not ask for the role {canonical!r}", code="role_forbidden", param=param
            )

    def grant(self, name: str | None, limited_to: Iterable[str] | None, *, param: str = "role") -> Grant:
        canonical = self.require(name, param=param)
        self.permit(canonical, limited_to, param=param)
        visible = self._visible[canonical] if self.catalogue.roles else frozenset({canonical})
        return Grant(str(name), canonical, visible)

    def scope(self, grant: Grant, *, without_role: bool) -> RoleScope:
        """The grant as the index knows it: the normal forms that mean a visible role today.

        Points keep the role they were given, so a catalogue that changes moves no point into sight by
        an old decision.
        """
        keys: set[str] = set()
        for name in grant.visible:
            keys |= self._keys[name] if self.catalogue.roles else {name}
        return RoleScope(frozenset(keys), without_role)
