"""What a reviewer is shown of a piece of evidence: what was asked, what was answered, what was found."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import orjson
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from schemas.distill import ReviewItem, ReviewValue
from schemas.evidence import Evidence, EvidenceFeedback, EvidenceReview
from schemas.runs import RetrievedText, RunOutput
from schemas.verdicts import Finding
from stillhouse.review.answers import STYLES, artifact_of, marked
from stillhouse.review.visible import shortened, visible

CHARS_MAX: Final = 2_000
"""Of each text, unless all is asked for."""
NAME_CHARS: Final = 12

PAST: Final = {"accept": "accepted", "reject": "rejected", "correct": "corrected"}
DIFF_STYLES: Final = {"+": "green", "-": "red", "@": "cyan"}


class Screen:
    """Writes to a terminal, from the top down: what was shown before can be scrolled back to."""

    def __init__(self, out: Console) -> None:
        self._out = out

    def say(self, message: str, style: str = "") -> None:
        self._out.print(Text(visible(message), style=style))

    def show(self, item: ReviewItem, place: str, *, full: bool) -> None:
        """All there is to know about a piece; long texts cut, unless it is to be `full`."""
        evidence = item.evidence
        kind = evidence.task.kind if evidence.task else ""
        title = "  ".join(
            visible(part)
            for part in (place, kind, evidence.role or "", evidence.evidence_id[:NAME_CHARS])
            if part
        )
        self._out.print(Rule(title, align="left", style="bold"))
        self._section("Why it is here", list(_reasons(item)))
        self._section("Task", _task(evidence, full=full))
        self._section("Context", _context(evidence.input.retrieved_context, full=full))
        findings = evidence.verdict.findings if evidence.verdict else []
        self._section("Answer", list(_answer(evidence.output, findings, full=full)))
        self._section("Findings", [_finding(finding) for finding in findings])
        self._section("Feedback", [_feedback(one) for one in evidence.feedback])
        self._section("Decided so far", [_decision(one) for one in item.decisions])

    def show_difference(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._out.print(Text(visible(line), style=DIFF_STYLES.get(line[:1], "")))

    def _section(self, title: str, parts: list[RenderableType]) -> None:
        if parts:
            self._out.print(Text(title, style="bold underline"))
            for part in parts:
                self._out.print(Padding(part, (0, 0, 0, 2)))


def _reasons(item: ReviewItem) -> Iterator[Text]:
    if item.scored is not None:
        yield Text(visible(", ".join(item.scored.reasons)))
    if item.value is not None:
        yield Text(_worth(item.value), style="dim")


def _worth(value: ReviewValue) -> str:
    return (
        f"value {value.score:.2f}: disagreement {value.disagreement:g}, novelty {value.novelty:.2f}"
        f" ({value.decided} alike decided), frequency {value.frequency:.2f} ({value.alike} alike waiting)"
    )


def _task(evidence: Evidence, *, full: bool) -> list[RenderableType]:
    asked: list[RenderableType] = [
        _labelled(str(message.get("role", "?")), _content(message.get("content")), full=full)
        for message in evidence.input.messages
    ]
    tools = evidence.input.tools
    return asked + ([_labelled("tools", orjson.dumps(tools).decode(), full=full)] if tools else [])


def _content(content: Any) -> str:
    """A message's text: itself, or the JSON of its parts."""
    if content is None:
        return ""
    return content if isinstance(content, str) else orjson.dumps(content).decode()


def _context(texts: list[RetrievedText], *, full: bool) -> list[RenderableType]:
    return [_labelled(f"{one.collection}/{one.id}", one.text, full=full) for one in texts]


def _labelled(label: str, text: str, *, full: bool) -> Text:
    shown = text if full else shortened(text, CHARS_MAX)
    return Text.assemble((f"{visible(label)}: ", "bold"), visible(shown))


def _answer(output: RunOutput | None, findings: list[Finding], *, full: bool) -> Iterator[RenderableType]:
    if output is None:
        yield Text("nothing came back from the model", style="dim")
        return
    content = output.content or ""
    artifact = artifact_of(content)
    if content:
        yield _cut(marked(artifact, findings), full=full)
    if full and not isinstance(artifact, str):
        yield _labelled("as it was written", content, full=True)
    for call in output.tool_calls or ():
        yield _labelled("calls", orjson.dumps(call).decode(), full=full)
    if output.finish_reason not in (None, "stop"):
        yield _labelled("ended", str(output.finish_reason), full=True)


def _cut(text: Text, *, full: bool) -> Text:
    if full or len(text) <= CHARS_MAX:
        return text
    return text[:CHARS_MAX].append(f" … {len(text) - CHARS_MAX:,} more characters (v shows them)", "dim")


def _finding(finding: Finding) -> Text:
    where = visible(finding.path) or "the whole"
    return Text.assemble(
        (f"{finding.severity} {visible(finding.code)}", STYLES[finding.severity]),
        f" at {where}: {visible(finding.message)}",
    )


def _feedback(said: EvidenceFeedback) -> Text:
    what = said.name or said.kind
    return Text(visible(f"{said.by} on the {said.scope}, {what}: {_content(said.value)}"))


def _decision(review: EvidenceReview) -> Text:
    note = f": {review.note}" if review.note else ""
    return Text(visible(f"{review.by} {PAST[review.decision]} it on {review.ts:%Y-%m-%d %H:%M}{note}"))
