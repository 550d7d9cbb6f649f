"""An answer as a reviewer sees it: the artifact laid out, and what was found marked where it is."""

import json
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from pydantic import JsonValue
from rich.text import Text

from schemas.verdicts import Finding, Severity
from services import answers
from stillhouse.review.visible import visible

STYLES: Final[dict[Severity, str]] = {
    "error": "bold red",
    "review": "bold magenta",
    "warning": "bold yellow",
    "info": "bold cyan",
}
INDENT: Final = "  "
DEPTH_MAX: Final = 64
"""A value that is nested deeper is shown as the text that it is."""

Span = tuple[int, int]


def artifact_of(content: str) -> JsonValue:
    """The JSON that validators looked at, or the text itself where there is none."""
    value = answers.parse(content)
    return value if _depth(value) <= DEPTH_MAX else content


def marked(artifact: JsonValue, findings: Sequence[Finding]) -> Text:
    """The artifact, its findings in their colours: a span, or the whole value at the finding's path."""
    writer = _Writer(findings)
    if isinstance(artifact, str):
        writer.text(artifact, "")
    else:
        writer.value(artifact, "", "")
    return writer.out


def _depth(value: JsonValue) -> int:
    depth, level = 0, [value]
    while level and depth <= DEPTH_MAX:
        level = [child for one in level for child in _children(one)]
        depth += 1
    return depth


def _children(value: JsonValue) -> list[JsonValue]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


class _Writer:
    """Writes JSON with a pointer to where it is, so that findings meet their values."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.out = Text()
        self._found: dict[str, list[Finding]] = defaultdict(list)
        for finding in findings:
            self._found[finding.path].append(finding)

    def value(self, value: JsonValue, pointer: str, indent: str) -> None:
        start = len(self.out)
        if isinstance(value, dict):
            items = [(f"{_quoted(key)}: ", _escaped(key), child) for key, child in value.items()]
            self._items("{}", items, pointer, indent)
        elif isinstance(value, list):
            self._items("[]", [("", str(n), child) for n, child in enumerate(value)], pointer, indent)
        elif isinstance(value, str):
            self.out.append('"')
            self.text(value, pointer, quoted=True)
            self.out.append('"')
            return
        else:
            self.out.append(json.dumps(value))
        self._mark(pointer, start)

    def _items(
        self, brackets: str, items: Sequence[tuple[str, str, JsonValue]], pointer: str, indent: str
    ) -> None:
        self.out.append(brackets[0])
        for number, (label, step, child) in enumerate(items):
            self.out.append(f"{',' if number else ''}\n{indent}{INDENT}{label}")
            self.value(child, f"{pointer}/{step}", indent + INDENT)
        self.out.append(f"\n{indent}{brackets[1]}" if items else brackets[1])

    def text(self, text: str, pointer: str, *, quoted: bool = False) -> None:
        """A text, cut where findings begin and end."""
        found = self._found.get(pointer, ())
        spans = [(finding, _within(finding.span, len(text))) for finding in found]
        edges = sorted({0, len(text), *(edge for _, span in spans for edge in span)})
        for start, end in pairwise(edges):
            piece = _quoted(text[start:end])[1:-1] if quoted else visible(text[start:end])
            styles = [STYLES[one.severity] for one, span in spans if span[0] <= start and end <= span[1]]
            self.out.append(piece, style=styles[0] if styles else "")

    def _mark(self, pointer: str, start: int) -> None:
        for finding in self._found.get(pointer, ()):
            if pointer:  # what is said of the whole would colour everything
                self.out.stylize(STYLES[finding.severity], start, len(self.out))


def _within(span: Span | None, length: int) -> Span:
    """A span cut to a text; all of it where none is given."""
    start, end = span or (0, length)
    return min(start, length), min(max(start, end), length)


def _quoted(text: str) -> str:
    return visible(json.dumps(text, ensure_ascii=False))


def _escaped(key: str) -> str:
    """A key as a step of a pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")
