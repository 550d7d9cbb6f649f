"""What an audit found, gathered from all its parts, and bounded even where everything is ruined."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from schemas.proof import AuditFinding, Unchecked

SAME_MAX: Final = 20
"""Findings of one kind that are told of one file: behind a deleted line every line is another."""

LOOKED_AT: Final = ("receipts", "segments", "sources", "products", "links", "bytes", "lines_not_yet_read")


@dataclass(slots=True)
class Report:
    """`checked` counts what was looked at, whether or not it held."""

    findings_max: int
    findings: list[AuditFinding] = field(default_factory=list)
    left_out: int = 0
    unchecked: list[Unchecked] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(LOOKED_AT, 0)))
    _found: Counter[tuple[str, str]] = field(default_factory=Counter)

    def find(
        self,
        code: str,
        file: str,
        message: str,
        *,
        line: int | None = None,
        offset: int | None = None,
        expected: object = None,
        found: object = None,
    ) -> None:
        self._found[code, file] += 1
        if len(self.findings) >= self.findings_max or self._found[code, file] > SAME_MAX:
            self.left_out += 1
            return
        self.findings.append(
            AuditFinding(
                code=code,
                file=file,
                message=message,
                line=line,
                offset=offset,
                expected=None if expected is None else str(expected),
                found=None if found is None else str(found),
            )
        )

    def skip(self, code: str, file: str, message: str) -> None:
        """Note what could not be checked."""
        if len(self.unchecked) < self.findings_max:
            self.unchecked.append(Unchecked(code=code, file=file, message=message))


def numbered(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Lines as people and editors count them."""
    return enumerate(lines, start=1)
