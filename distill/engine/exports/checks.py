"""What a row of each target must look like, to the last key. Every row is held against this before it is
written.

Trainers find such faults late or not at all: some look at the first row alone, some refuse a whole file for
one unknown key. The forms in `targets` are meant never to fail here; what does is left out as
`row.invalid`.
"""

from collections.abc import Mapping
from typing import Any, Final

from distill.engine.exports.targets import ROLES, Row, Unfit


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise Unfit("row.invalid", f"the row is not what the target takes: {what}")


def _keys(row: Mapping[str, Any], what: str, required: frozenset[str], optional: frozenset[str]) -> None:
    _require(type(row) is dict, what)
    keys = row.keys()
    _require(keys >= required and keys <= required | optional, f"the keys of {what}")


NONE: Final[frozenset[str]] = frozenset()
TOOLS: Final = frozenset({"tools"})
TOOL_CALLS: Final = frozenset({"tool_calls"})
TOOL_CALL_ID: Final = frozenset({"tool_call_id"})
TEXT_MESSAGE: Final = frozenset({"role", "content"})


def _messages(value: Any, what: str) -> list[Row]:
    _require(type(value) is list and len(value) > 0, f"{what} is no list with something in it")
    messages: list[Row] = value
    return messages


def _text_message(message: Any, what: str, roles: frozenset[str]) -> None:
    """A message of role and content alone."""
    _keys(message, what, TEXT_MESSAGE, NONE)
    _require(message["role"] in roles and type(message["content"]) is str, what)


def _openai_messages(value: Any, what: str, extra: frozenset[str] = NONE) -> list[Row]:
    messages = _messages(value, what)
    for message in messages:
        role = message.get("role", "")
        _require(role in ROLES, f"a role in {what}")
        allowed = {"assistant": TOOL_CALLS | extra, "tool": TOOL_CALL_ID}.get(role, NONE)
        _keys(message, f"a message in {what}", frozenset({"role"}), frozenset({"content", "name"}) | allowed)
        calls = message.get("tool_calls")
        _require(type(message.get("content")) is str or bool(calls), f"content in {what}")
        _require("content" not in message or type(message["content"]) is str, f"content in {what}")
        _require(calls is None or all(map(_is_call, calls)), f"calls of tools in {what}")
        _require("name" not in message or type(message["name"]) is str, f"a name in {what}")
        _require(role != "tool" or type(message.get("tool_call_id")) is str, f"`tool_call_id` in {what}")
        _require(message.get("weight", 0) in (0, 1), f"a weight in {what}")
    return messages


def _is_call(call: Any) -> bool:
    if type(call) is not dict or call.keys() != {"id", "type", "function"} or call["type"] != "function":
        return False
    function = call["function"]
    return (
        type(function) is dict and function.keys() == {"name", "arguments"} and _are_texts(function.values())
    )


def _are_texts(values: Any) -> bool:
    return all(type(value) is str for value in values)


def _tools(row: Row) -> None:
    tools = row.get("tools")
    _require(tools is None or (type(tools) is list and bool(tools)), "`tools`")
    for tool in tools or ():
        _require(type(tool) is dict and tool.get("type") == "function" and "function" in tool, "a tool")


def openai_sft(row: Row) -> None:
    _keys(row, "the row", frozenset({"messages"}), TOOLS)
    messages = _openai_messages(row["messages"], "`messages`", frozenset({"weight"}))
    _require(messages[-1]["role"] == "assistant", "the last message is not the assistant's")
    _require(messages[-1].get("weight", 1) == 1, "the answer weighs nothing")
    _tools(row)


def openai_preference(row: Row) -> None:
    _keys(row, "the row", frozenset({"input", "preferred_output", "non_preferred_output"}), NONE)
    _keys(row["input"], "`input`", frozenset({"messages"}), TOOLS)
    _openai_messages(row["input"]["messages"], "`input`")
    _tools(row["input"])
    for name in ("preferred_output", "non_preferred_output"):
        _require(type(row[name]) is list and len(row[name]) == 1, f"`{name}` is not one message")
        _text_message(row[name][0], f"`{name}`", frozenset({"assistant"}))
    _require(row["preferred_output"] != row["non_preferred_output"], "both outputs are the same")


def trl_sft(row: Row) -> None:
    _keys(row, "the row", frozenset({"prompt", "completion"}), TOOLS)
    for name in ("prompt", "completion"):
        for message in _openai_messages(row[name], f"`{name}`"):
            _require(type(message.get("content")) is str, f"content in `{name}`")
    _require([message["role"] for message in row["completion"]] == ["assistant"], "`completion`")
    _require(type(row.get("tools", "")) is str, "`tools`")


def trl_preference(row: Row) -> None:
    _keys(row, "the row", frozenset({"prompt", "chosen", "rejected"}), NONE)
    for message in _messages(row["prompt"], "`prompt`"):
        _text_message(message, "`prompt`", ROLES)
    for name in ("chosen", "rejected"):
        _require(type(row[name]) is list and len(row[name]) == 1, f"`{name}` is not one message")
        _text_message(row[name][0], f"`{name}`", frozenset({"assistant"}))
    _require(row["chosen"] != row["rejected"], "both outputs are the same")


def together_sft(row: Row) -> None:
    _keys(row, "the row", frozenset({"messages"}), NONE)
    messages = _messages(row["messages"], "`messages`")
    for message in messages:
        _text_message(message, "`messages`", frozenset({"system", "user", "assistant"}))
    turns = messages[1:] if messages[0]["role"] == "system" else messages
    roles = [message["role"] for message in turns]
    _require(bool(roles) and roles == ["user", "assistant"] * (len(roles) // 2), "turns do not alternate")


def axolotl_preference(row: Row) -> None:
    _keys(row, "the row", frozenset({"messages", "chosen", "rejected"}), NONE)
    for message in _messages(row["messages"], "`messages`"):
        _text_message(message, "`messages`", ROLES)
    for name in ("chosen", "rejected"):
        _text_message(row[name], f"`{name}`", frozenset({"assistant"}))
    _require(row["chosen"] != row["rejected"], "both outputs are the same")


def _turns(row: Row, *, last: str) -> None:
    turns = _messages(row["conversations"], "`conversations`")
    for place, turn in enumerate(turns):
        _turn(turn, "`conversations`", ("human", "gpt")[place % 2])
    _require(turns[-1]["from"] == last, f"the last turn is not of {last}")
    _require(type(row.get("system", "")) is str, "`system`")


def _turn(turn: Any, what: str, speaker: str) -> None:
    _require(type(turn) is dict and turn.keys() == {"from", "value"}, what)
    _require(turn["from"] == speaker and type(turn["value"]) is str, what)


def llamafactory_sft(row: Row) -> None:
    _keys(row, "the row", frozenset({"conversations"}), frozenset({"system"}))
    _turns(row, last="gpt")


def llamafactory_preference(row: Row) -> None:
    _keys(row, "the row", frozenset({"conversations", "chosen", "rejected"}), frozenset({"system"}))
    _turns(row, last="human")
    for name in ("chosen", "rejected"):
        _turn(row[name], f"`{name}`", "gpt")
    _require(row["chosen"] != row["rejected"], "both outputs are the same")


RAG_KEYS: Final = frozenset(
    {"schema", "schema_version", "ext", "evidence_id", "task", "role", "query", "text"}
)


def rag(row: Row) -> None:
    _keys(row, "the row", RAG_KEYS, NONE)
    _require(_are_texts((row["evidence_id"], row["query"], row["text"])), "a text")
    _require(bool(row["query"].strip()) and bool(row["text"].strip()), "an empty text")
