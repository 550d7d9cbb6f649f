"""What an audit found, gathered from all its parts, and bounded even where everything is ruined."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from schemas.proof import AuditFinding, Unchecked

Code = Literal[
    "anchor_differs",
    "chain_broken",
    "counts_not_conserved",
    "evidence_differs",
    "evidence_id_differs",
    "file_unexpected",
    "head_behind",
    "head_differs",
    "head_invalid",
    "head_missing",
    "key_invalid",
    "key_missing",
    "key_unknown",
    "line_differs",
    "line_invalid",
    "link_broken",
    "link_invalid",
    "link_unvouched",
    "material_unvouched",
    "product_differs",
    "product_missing",
    "provenance_count",
    "provenance_misplaced",
    "rebuild_differs",
    "receipt_duplicate",
    "receipt_inconsistent",
    "receipt_invalid",
    "receipt_misplaced",
    "receipt_missing",
    "receipt_unchained",
    "row_differs",
    "seal_differs",
    "seal_invalid",
    "seal_missing",
    "segment_differs",
    "segment_missing",
    "segment_truncated",
    "signature_invalid",
    "source_differs",
    "source_truncated",
]
"""What can be found."""

Reason = Literal["rebuild_impossible", "receipts_none", "source_missing", "tail_unfinished"]
"""Why something could not be checked."""

SAME_MAX: Final = 20
"""Findings of one kind that are told of one file: behind a deleted line every line is another."""

LOOKED_AT: Final = (
    "receipts",
    "segments",
    "sources",
    "products",
    "links",
    "bytes",
    "lines_not_yet_read",
    "rebuilt",
)


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
        code: Code,
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

    def skip(self, code: Reason, file: str, message: str) -> None:
        """Note what could not be checked."""
        if len(self.unchecked) < self.findings_max:
            self.unchecked.append(Unchecked(code=code, file=file, message=message))


def numbered(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Lines as people and editors count them."""
    return enumerate(lines, start=1)
