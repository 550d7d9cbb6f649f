"""What one caller may see of one collection: asked of the index, and again of every hit."""

from dataclasses import dataclass

from vectord.backends import Record, Scored, Where
from vectord.engine.roles import Grant, Roles


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
