"""The row forms of trainers: one function a target, from a sample to exactly the keys that it takes."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from schemas.evidence import PreferenceSample, RagSample, SftSample
from schemas.runs import RunOutput

Row = dict[str, Any]

MESSAGE_KEYS: Final = frozenset({"role", "content", "name", "tool_calls", "tool_call_id"})
ROLES: Final = frozenset({"system", "user", "assistant", "tool"})


class Unfit(Exception):
    """A sample that the target cannot take. `code` goes into the quarantine record."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def rag(sample: RagSample) -> Row:
    """Our own form: the record itself."""
    return sample.model_dump(mode="json")


def openai_sft(sample: SftSample) -> Row:
    """`{"messages", "tools"?}`. Only the accepted answer is trained on: earlier assistant turns weigh 0."""
    messages = [_message(message) for message in sample.messages]
    for message in messages:
        if message["role"] == "assistant":
            message["weight"] = 0
    row: Row = {"messages": [*messages, _answer(sample.answer)]}
    if sample.tools:
        row["tools"] = sample.tools
    return row


def openai_preference(sample: PreferenceSample) -> Row:
    """`{"input", "preferred_output", "non_preferred_output"}`: text alone, one assistant message each."""
    for output in (sample.chosen, sample.rejected):
        if output.tool_calls:
            raise Unfit("target.text_only", "preference pairs hold text; this output has tool calls")
    given: Row = {"messages": [_message(message) for message in sample.messages]}
    if sample.tools:
        given["tools"] = sample.tools
    return {
        "input": given,
        "preferred_output": [_answer(sample.chosen)],
        "non_preferred_output": [_answer(sample.rejected)],
    }


RAG: Final[Mapping[str, Callable[[RagSample], Row]]] = {"stillhouse": rag}
SFT: Final[Mapping[str, Callable[[SftSample], Row]]] = {"openai": openai_sft}
PREFERENCE: Final[Mapping[str, Callable[[PreferenceSample], Row]]] = {"openai": openai_preference}


def _message(message: Mapping[str, Any]) -> Row:
    """A message with the target's keys only. Nulls say nothing, so they are dropped."""
    row = {key: value for key, value in message.items() if value is not None}
    if unknown := sorted(set(row) - MESSAGE_KEYS):
        raise Unfit("target.message_key", f"{len(unknown)} keys of a message are unknown to the target")
    if row.get("role") == "developer":
        row["role"] = "system"  # the same thing under its newer name
    if row.get("role") not in ROLES:
        raise Unfit("target.role", "a message has a role that the target does not know")
    if not isinstance(row.get("content"), str) and not row.get("tool_calls"):
        raise Unfit("target.content_not_text", "a message holds something else than text")
    return row


def _answer(output: RunOutput) -> Row:
    answer: Row = {"role": "assistant"}
    if output.content:
        answer["content"] = output.content
    if output.tool_calls:
        answer["tool_calls"] = output.tool_calls
    if len(answer) == 1:
        raise Unfit("output.empty", "the answer has neither text nor tool calls")
    return answer
