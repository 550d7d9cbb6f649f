"""What the model is told beside the caller's own messages: the form of the answer, notes, repairs."""

from collections.abc import Callable, Sequence
from typing import Final

import orjson
from pydantic import JsonValue

from chatd.backends.peers import Note
from chatd.engine.artifacts import fix_path, with_fixes
from schemas.base import JsonObject
from schemas.chat import ChatMessage
from schemas.runs import RetrievedText
from schemas.verdicts import Finding

EVIDENCE_CHARS_MAX: Final = 300
SYSTEM: Final = ("system", "developer")


def as_json(value: JsonValue) -> str:
    return orjson.dumps(value).decode()


def text_of(artifact: JsonValue) -> str:
    """An artifact as the model would write it."""
    return artifact if isinstance(artifact, str) else as_json(artifact)


def last_user_text(messages: list[ChatMessage]) -> str | None:
    """What the user said last, without images."""
    for message in reversed(messages):
        if message.role == "user":
            return text_in(message) or None
    return None


def fitting(notes: list[Note], chars_max: int) -> list[Note]:
    """The best notes, as many as fit into `chars_max` characters."""
    kept: list[Note] = []
    for note in notes:
        chars_max -= len(note.text.text)
        if chars_max < 0:
            break
        kept.append(note)
    return kept


def framed(
    messages: Sequence[ChatMessage],
    kind: str,
    schema: JsonObject | None,
    notes: Sequence[RetrievedText],
    repair: Sequence[str] = (),
) -> list[ChatMessage]:
    """The conversation with our instructions in its one system message, after the caller's own."""
    lines = [f"Answer with one JSON document of the kind {kind} and nothing else."]
    if schema is not None:
        lines += ["Its JSON Schema:", as_json(schema)]
    if notes:
        lines.append("Reference notes from earlier work; use what applies:")
        lines.extend(f"[{number}] {note.text}" for number, note in enumerate(notes, start=1))
    lines.extend(repair)
    first = messages[0]
    if first.role not in SYSTEM:
        return [ChatMessage(role="system", content="\n".join(lines)), *messages]
    return [ChatMessage(role="system", content="\n".join([text_in(first), "", *lines])), *messages[1:]]


def own_system_chars(messages: Sequence[ChatMessage]) -> int:
    """How many characters at the start of the system message that `framed` makes are the caller's own."""
    return len(text_in(messages[0])) if messages[0].role in SYSTEM else 0


def repairing(
    artifact: JsonValue, findings: Sequence[Finding], shown: Callable[[JsonValue], JsonValue]
) -> list[str]:
    """What has to change in the last answer: by code, place and fix, never by a message for people.

    Where findings bring fixes, the document with them applied stands for the last answer; a small model
    that sees the faulty one as well repeats that. It also keeps to it better before the caller's words
    than after them. `shown` makes of a document what the schema lets the model write.
    """
    listed = [finding for finding in findings if finding.severity != "info"]
    lines = ["The last answer was not accepted. Findings:"]
    lines.extend(f"{number}. {_described(finding)}" for number, finding in enumerate(listed, start=1))
    if any(finding.fix is not None for finding in listed):
        mended = shown(with_fixes(artifact, listed))
        return [*lines, "The correct answer, to be repeated exactly:", text_of(mended)]
    return [*lines, "The last answer, to be corrected:", text_of(artifact)]


def _described(finding: Finding) -> str:
    said = f"{finding.code} ({finding.severity}) at {finding.path or 'the whole document'}"
    if finding.fix is not None:
        return f"{said}. Fix: {_fix(finding.fix, finding.path)}"
    if finding.evidence is None:
        return said
    return f"{said}. Evidence: {as_json(finding.evidence)[:EVIDENCE_CHARS_MAX]}"


def _fix(fix: JsonObject, path: str) -> str:
    where = fix_path(fix, path) or "the whole document"
    match fix.get("op"):
        case "remove":
            return f"remove {where}"
        case "add" | "replace" as op:
            return f"{op} {where} with {as_json(fix.get('value'))}"
        case _:
            return as_json(fix)


def text_in(message: ChatMessage) -> str:
    """The words of a message, without its images."""
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part.text for part in message.content or () if part.type == "text")
