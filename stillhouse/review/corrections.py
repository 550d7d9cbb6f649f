"""A reviewer's correction: the answer, as it is put into an editor, and what comes back."""

import difflib
import json
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import ValidationError

from schemas.runs import RunOutput
from services.errors import InvalidRequest
from services.faults import reason_of

EDITOR: Final = "vi"

Edit = Callable[[Path], None]
"""Lets a person change a file. Raises `InvalidRequest` when that is not to count."""


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer as a file: its JSON indented, its text, or all of an output that calls tools."""

    text: str
    suffix: str
    whole: bool = False

    @classmethod
    def of(cls, output: RunOutput | None) -> "Draft":
        if output is not None and output.tool_calls:
            return cls(_indented(output.model_dump(mode="json")), ".json", whole=True)
        content = (output.content if output is not None else None) or ""
        value = _json_of(content)
        return cls(_indented(value), ".json") if value is not None else cls(content, ".txt")

    def read(self, text: str, original: RunOutput | None) -> RunOutput:
        """The output that an edited text stands for. Raises `InvalidRequest` for what cannot be one."""
        if text.strip() == self.text.strip():
            raise InvalidRequest("nothing was changed")
        if not text.strip():
            raise InvalidRequest("nothing is left")
        if self.suffix != ".json":
            return RunOutput(content=text.removesuffix("\n"))
        value = _parsed(text)
        if self.whole:
            return _output(value)
        compact = original is not None and "\n" not in (original.content or "").strip()
        return RunOutput(
            content=json.dumps(value, ensure_ascii=False) if compact else text.removesuffix("\n")
        )

    def difference(self, text: str) -> Iterator[str]:
        """What an edited text changes, line by line."""
        return difflib.unified_diff(
            self.text.splitlines(), text.splitlines(), "answer", "correction", lineterm="", n=2
        )


def edit_with_editor(path: Path) -> None:
    """Open the file in the editor that VISUAL or EDITOR names."""
    command = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or EDITOR)
    try:
        status = subprocess.run([*command, str(path)], check=False).returncode
    except OSError as error:
        raise InvalidRequest(f"the editor {command[0]!r} cannot be started: {error.strerror}") from None
    if status:
        raise InvalidRequest(f"the editor {command[0]!r} ended with status {status}; nothing was taken")


def _json_of(content: str) -> Any:
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict | list) else None


def _indented(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def _parsed(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(
            f"this is not JSON: {error.msg} in line {error.lineno}, column {error.colno}"
        ) from None


def _output(value: Any) -> RunOutput:
    try:
        return RunOutput.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = "/".join(str(part) for part in first["loc"])
        raise InvalidRequest(f"`{where}`: {reason_of(first)}") from None
