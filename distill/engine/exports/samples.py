"""Which evidence becomes a sample of which kind, and the named reasons why the rest does not.

Evidence and categories are read as JSON (`library.Item`), since a model for each of a million would cost
more than all the rest; `schemas.evidence` says what is in them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from distill.engine.exports.targets import Sample, Unfit
from distill.engine.library import Item, Library
from distill.engine.review.decisions import correction_that_stands
from schemas.canonical import canonical_bytes
from schemas.distill import JobRequest

Message = Mapping[str, Any]
Output = Mapping[str, Any]

SCORES: Final = {"accepted": 1.0, "partially_accepted": 0.5, "rejected": 0.0}


@dataclass(frozen=True, slots=True)
class Made:
    """A sample, and what is told of it beside the row. `first` is the attempt with the original prompt."""

    sample: Sample
    first: Item
    pair: str | None = None
    correction: str | None = None
    draft: Item | None = None
    reasons: tuple[str, ...] = ()
    margin: float | None = None


def original(library: Library, item: Item) -> Item:
    """The attempt with the original prompt, which later ones continue. Raises `Unfit`."""
    if item.evidence.get("repair_of") is None:
        return item
    first = library.first(item)
    if first is None:
        raise Unfit("input.no_first_attempt", "the first attempt cannot be found")
    if not _continues(messages_of(item), messages_of(first)):
        raise Unfit("input.differs", "the attempt does not continue the prompt of the first one")
    return first


def require_taken(item: Item, *, include_partial: bool) -> None:
    """Raise `Unfit` unless the category is one that may be trained on."""
    category = item.category
    if category != "accepted" and not (include_partial and category == "partially_accepted"):
        raise Unfit(f"category.{category}", ", ".join(item.reasons))


def sft(library: Library, item: Item, options: JobRequest) -> Made:
    answer, correction = _answer(item, options)
    first = original(library, item)
    sample = {
        "messages": messages_of(first),
        "tools": first.evidence["input"].get("tools"),
        "answer": answer,
    }
    return Made(sample, first, correction=correction)


def rag(library: Library, item: Item, options: JobRequest) -> Made:
    answer, correction = _answer(item, options)
    first = original(library, item)
    query = _last_question(first)
    if query is None:
        raise Unfit("input.no_question", "there is no user message of plain text")
    text = answer.get("content")
    if not isinstance(text, str) or not text.strip():
        raise Unfit("output.no_text", "the answer has no text to be retrieved")
    evidence = item.evidence
    sample = {
        "evidence_id": evidence["evidence_id"],
        "task": evidence.get("task"),
        "role": evidence.get("role"),
        "query": query,
        "text": text,
    }
    return Made(sample, first, correction=correction)


SINGLES: Final[Mapping[str, Callable[[Library, Item, JobRequest], Made]]] = {"sft": sft, "rag": rag}


# --- parts that pairs use too -----------------------------------------------------------------


def messages_of(item: Item) -> list[Message]:
    messages: list[Message] = item.evidence["input"]["messages"]
    return messages


def output_of(item: Item) -> Output | None:
    output: Output | None = item.evidence.get("output")
    return output


def _answer(item: Item, options: JobRequest) -> tuple[Output, str | None]:
    """The answer to learn from: the one that reviewers put in its place, with the id of the review, or the
    model's own. Raises `Unfit` unless one of them may be trained on.
    """
    corrected = correction_that_stands(item.evidence.get("review") or ())
    if corrected is not None:
        return corrected["correction"], corrected["review_id"]
    require_taken(item, include_partial=options.include_partial)
    return _output_of(item), None


def _output_of(item: Item) -> Output:
    output = output_of(item)
    if output is None:
        raise Unfit("output.empty", "nothing came back from the model")
    return output


def prompt_bytes(item: Item) -> bytes:
    """What was asked, in canonical form: messages and tools."""
    given = item.evidence["input"]
    return canonical_bytes([given["messages"], given.get("tools")])


def canonical_output(output: Output) -> bytes:
    """What an output says: JSON text by its value, other text without the white space around it."""
    text = (output.get("content") or "").strip()
    calls = output.get("tool_calls") or None
    value: Any = None
    if text[:1] in ("{", "[", '"') or text[:1].isdigit() or text[:1] == "-":
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            value = None
    try:
        return canonical_bytes([text if value is None else value, calls])
    except ValueError:  # numbers that have no canonical form
        return canonical_bytes([text, orjson.dumps(calls).decode()])


def question_text(item: Item) -> str:
    """What the users said in a prompt: the part of it that tells it from others."""
    return "\n".join(
        message["content"]
        for message in messages_of(item)
        if message.get("role") != "system" and isinstance(message.get("content"), str)
    )


def answer_text(item: Item) -> str:
    output = output_of(item) or {}
    calls = output.get("tool_calls")
    return (output.get("content") or "") + (orjson.dumps(calls).decode() if calls else "")


def _continues(messages: list[Message], prompt: list[Message]) -> bool:
    """Whether `messages` are the prompt and more: in further messages, or at the end of its own ones."""
    return len(messages) >= len(prompt) and all(map(_extends, messages, prompt))


def _extends(message: Message, start: Message) -> bool:
    text, begun = message.get("content"), start.get("content")
    if not isinstance(text, str) or not isinstance(begun, str):
        return message == start
    return text.startswith(begun) and {**message, "content": begun} == start


def _last_question(item: Item) -> str | None:
    for message in reversed(messages_of(item)):
        if message.get("role") == "user":
            content = message.get("content")
            return content if isinstance(content, str) and content.strip() else None
    return None
