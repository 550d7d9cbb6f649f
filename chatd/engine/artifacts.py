"""Shows what a finding's fix would make of an artifact."""

import copy
from collections.abc import Sequence
from typing import Any

from pydantic import JsonValue

from schemas.base import JsonObject
from schemas.verdicts import Finding


def with_fixes(artifact: JsonValue, findings: Sequence[Finding]) -> JsonValue:
    """A copy of the artifact with every usable fix applied.

    Nothing may take it for the model's answer: it is shown to the model, which then answers itself.
    """
    fixed = copy.deepcopy(artifact)
    # Several findings on one thing carry the same fix, which is meant once.
    fixes: list[tuple[JsonObject, str]] = []
    for finding in findings:
        if finding.fix is not None:
            placed = (finding.fix, fix_path(finding.fix, finding.path))
            if placed not in fixes:
                fixes.append(placed)
    # Removals come last and from the end, so that no index shifts under a later fix.
    changes = [fix for fix in fixes if fix[0].get("op") != "remove"]
    removals = [fix for fix in fixes if fix[0].get("op") == "remove"]
    for fix, path in [*changes, *reversed(removals)]:
        fixed = _applied(fixed, fix, path)
    return fixed


def fix_path(fix: JsonObject, path: str) -> str:
    """Where a fix applies: at its own pointer, or at the finding's."""
    own = fix.get("path")
    return own if isinstance(own, str) else path


def _applied(document: Any, fix: JsonObject, pointer: str) -> Any:
    """The document with one fix applied in place, if it fits."""
    if not pointer:
        return fix.get("value", document)
    *parents, last = _tokens(pointer)
    holder = document
    for token in parents:
        holder = _step(holder, token)
    if isinstance(holder, dict):
        _apply_to_object(holder, last, fix)
    elif isinstance(holder, list):
        _apply_to_array(holder, last, fix)
    return document


def _tokens(pointer: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _step(holder: Any, token: str) -> Any:
    if isinstance(holder, dict):
        return holder.get(token)
    if isinstance(holder, list) and token.isdecimal() and int(token) < len(holder):
        return holder[int(token)]
    return None


def _apply_to_object(holder: dict[str, Any], key: str, fix: JsonObject) -> None:
    if fix.get("op") == "remove":
        holder.pop(key, None)
    elif "value" in fix:
        holder[key] = fix["value"]


def _apply_to_array(holder: list[Any], place: str, fix: JsonObject) -> None:
    op = fix.get("op")
    index = len(holder) if place == "-" else int(place) if place.isdecimal() else -1
    if op == "add" and "value" in fix and 0 <= index <= len(holder):
        holder.insert(index, fix["value"])
    elif op == "remove" and 0 <= index < len(holder):
        del holder[index]
    elif op == "replace" and "value" in fix and 0 <= index < len(holder):
        holder[index] = fix["value"]
