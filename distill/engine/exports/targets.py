"""The row forms of trainers: one function a target, from a sample to exactly the keys that it takes.

A sample is a dict of the fields of `schemas.evidence.SftSample`, `PreferenceSample` or `RagSample`; the row
is what a trainer reads. `checks` knows what a row of each target must look like.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

Row = dict[str, Any]
Sample = Mapping[str, Any]

MESSAGE_KEYS: Final = frozenset({"role", "content", "name", "tool_calls", "tool_call_id"})
ROLES: Final = frozenset({"system", "user", "assistant", "tool"})
SHAREGPT_ROLES: Final = {"user": "human", "assistant": "gpt", "system": "system"}


class Unfit(Exception):
    """A sample that the target cannot take. `code` goes into the quarantine record."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


# --- rag --------------------------------------------------------------------------------------


def rag(sample: Sample) -> Row:
    """Our own form: the record itself."""
    return {"schema": "stillhouse.rag", "schema_version": "1.0", "ext": {}, **sample}


# --- sft --------------------------------------------------------------------------------------


def openai_sft(sample: Sample) -> Row:
    """`{"messages", "tools"?}`. Only the accepted answer is trained on: earlier assistant turns weigh 0."""
    messages = _messages(sample)
    for message in messages:
        if message["role"] == "assistant":
            message["weight"] = 0
    return _with_tools({"messages": [*messages, _answer(sample["answer"])]}, sample)


def trl_sft(sample: Sample) -> Row:
    """`{"prompt", "completion", "tools"?}`: the trainer then learns the completion alone.

    Every message has the same keys in every row, since Arrow wants one type a column; tools and the arguments
    of their calls are JSON texts for the same reason.
    """
    row: Row = {
        "prompt": [_uniform(message) for message in _messages(sample)],
        "completion": [_uniform(_answer(sample["answer"]))],
    }
    if sample.get("tools"):
        row["tools"] = orjson.dumps(sample["tools"]).decode()
    return row


def together_sft(sample: Sample) -> Row:
    """`{"messages"}` and nothing else: text alone, the turns of user and assistant in strict alternation."""
    messages = [*_texts_only(sample, "messages of this target"), _text_answer(sample["answer"])]
    _require_alternation(messages)
    return {"messages": messages}


def llamafactory_sft(sample: Sample) -> Row:
    """ShareGPT form: `{"conversations", "system"?}`, human and gpt in turn."""
    row = _sharegpt(sample)
    row["conversations"].append({"from": "gpt", "value": _text_answer(sample["answer"])["content"]})
    return row


# --- preference -------------------------------------------------------------------------------


def openai_preference(sample: Sample) -> Row:
    """`{"input", "preferred_output", "non_preferred_output"}`: text alone, one assistant message each."""
    chosen, rejected = _two_texts(sample)
    return {
        "input": _with_tools({"messages": _messages(sample)}, sample),
        "preferred_output": [chosen],
        "non_preferred_output": [rejected],
    }


def trl_preference(sample: Sample) -> Row:
    """`{"prompt", "chosen", "rejected"}`, each a list of messages."""
    chosen, rejected = _two_texts(sample)
    return {
        "prompt": _texts_only(sample, "prompts of this target"),
        "chosen": [chosen],
        "rejected": [rejected],
    }


def axolotl_preference(sample: Sample) -> Row:
    """`chat_template.default`: `{"messages", "chosen", "rejected"}`, the two outputs as objects."""
    chosen, rejected = _two_texts(sample)
    return {"messages": _texts_only(sample, "prompts of this target"), "chosen": chosen, "rejected": rejected}


def llamafactory_preference(sample: Sample) -> Row:
    """ShareGPT form: `{"conversations", "chosen", "rejected", "system"?}`, the two outputs as objects."""
    chosen, rejected = _two_texts(sample)
    return {
        **_sharegpt(sample),
        "chosen": {"from": "gpt", "value": chosen["content"]},
        "rejected": {"from": "gpt", "value": rejected["content"]},
    }


# --- parts ------------------------------------------------------------------------------------


def _messages(sample: Sample) -> list[Row]:
    return [_message(message) for message in sample["messages"]]


def _message(message: Mapping[str, Any]) -> Row:
    """A message with the target's keys only. Nulls say nothing, so they are dropped."""
    row = {key: value for key, value in message.items() if value is not None}
    if not row.keys() <= MESSAGE_KEYS:
        unknown = len(row.keys() - MESSAGE_KEYS)
        raise Unfit("target.message_key", f"{unknown} keys of a message are unknown to the target")
    if row.get("role") == "developer":
        row["role"] = "system"  # the same thing under its newer name
    if not isinstance(role := row.get("role"), str) or role not in ROLES:
        raise Unfit("target.role", "a message has a role that the target does not know")
    content = row.get("content")
    if isinstance(content, list):
        row["content"] = content = _joined(content)
    if not isinstance(content, str) and not row.get("tool_calls"):
        raise Unfit("target.content_not_text", "a message holds something else than text")
    if "tool_calls" in row:
        row["tool_calls"] = _calls(row["tool_calls"])
    return row


def _joined(parts: list[Any]) -> str:
    """The text of a message that came in parts, where all of them are text."""
    texts = [
        part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in parts
    ]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise Unfit("target.content_not_text", "a message holds something else than text")
    return "".join(text for text in texts if text is not None)


def _answer(output: Mapping[str, Any]) -> Row:
    answer: Row = {"role": "assistant"}
    if output.get("content"):
        answer["content"] = output["content"]
    if output.get("tool_calls"):
        answer["tool_calls"] = _calls(output["tool_calls"])
    if len(answer) == 1:
        raise Unfit("output.empty", "the answer has neither text nor tool calls")
    return answer


def _text_answer(output: Mapping[str, Any]) -> Row:
    answer = _answer(output)
    if "tool_calls" in answer:
        raise Unfit("target.text_only", "the target takes text; this output has tool calls")
    return answer


def _two_texts(sample: Sample) -> tuple[Row, Row]:
    return _text_answer(sample["chosen"]), _text_answer(sample["rejected"])


def _texts_only(sample: Sample, what: str) -> list[Row]:
    """Messages of role and content alone."""
    if sample.get("tools"):
        raise Unfit("target.text_only", f"{what} hold text; this one offers tools")
    messages = _messages(sample)
    if any(message["role"] == "tool" or "tool_calls" in message for message in messages):
        raise Unfit("target.text_only", f"{what} hold text; this one has calls of tools")
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _with_tools(row: Row, sample: Sample) -> Row:
    if sample.get("tools"):
        row["tools"] = sample["tools"]
    return row


def _uniform(message: Row) -> Row:
    """A message whose columns have one type in every row."""
    return {**message, "content": message.get("content", "")}


def _calls(calls: Any) -> list[Row]:
    """Calls of tools with the target's keys only, their arguments as JSON text."""
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise Unfit("target.tool_calls", "the calls of tools are not a list of objects")
    return [_call(call) for call in calls]


def _call(call: Row) -> Row:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Unfit("target.tool_calls", "a call of a tool does not name its function")
    return {
        "id": str(call.get("id") or ""),
        "type": "function",
        "function": {"name": function["name"], "arguments": _as_text(function.get("arguments", "{}"))},
    }


def _as_text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()


def _require_alternation(messages: list[Row]) -> None:
    """One system message at most, at the start; then user and assistant in turn, the assistant last."""
    turns = messages[1:] if messages[0]["role"] == "system" else messages
    if [turn["role"] for turn in turns] != ["user", "assistant"] * (len(turns) // 2) or not turns:
        raise Unfit("target.alternation", "user and assistant do not speak in turn, beginning with the user")


def _sharegpt(sample: Sample) -> Row:
    messages = _texts_only(sample, "conversations of this target")
    _require_alternation([*messages, {"role": "assistant"}])
    row: Row = {}
    if messages[0]["role"] == "system":
        row["system"] = messages.pop(0)["content"]
    row["conversations"] = [
        {"from": SHAREGPT_ROLES[message["role"]], "value": message["content"]} for message in messages
    ]
    return row
