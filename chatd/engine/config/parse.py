"""Reads `chatd.toml`: a configuration, or every fault there is in it, each with its line."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from chatd.engine.config.lines import Path, line_of, lines_of
from chatd.engine.config.models import Config
from chatd.engine.config.secrets import NoSecret, Secrets
from services.faults import reason_of

_SYNTAX: Final = re.compile(r"^(.*) \(at (?:line (\d+), column \d+|end of document)\)$", re.DOTALL)
_TYPES: Final = frozenset({"ollama", "openai", "openrouter", "anthropic", "gemini"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: where, and why. Values are not repeated, as some are secret."""

    line: int
    path: str
    message: str

    def __str__(self) -> str:
        return (
            f"line {self.line}: {self.path}: {self.message}"
            if self.path
            else f"line {self.line}: {self.message}"
        )


class ConfigRefused(ValueError):
    """A file that cannot be used, with all its faults in the order of their lines."""

    def __init__(self, file: str, faults: list[Fault]) -> None:
        self.faults = sorted(faults, key=lambda fault: (fault.line, fault.path))
        super().__init__("\n".join(f"{file}: {fault}" for fault in self.faults))


def parse(text: str, secrets: Secrets, *, file: str = "chatd.toml") -> Config:
    """The configuration that a text says. Raises `ConfigRefused`; a key that is not there is a fault too."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigRefused(file, [_syntax(text, str(error))]) from None
    lines = lines_of(text)
    crossed = [*_crossed(data), *_keyless(data, secrets)]
    faults = [Fault(line_of(lines, path), _dotted(path), why) for path, why in crossed]
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        faults += [_fault(lines, data, one) for one in error.errors(include_url=False, include_input=False)]
        raise ConfigRefused(file, faults) from None
    if faults:
        raise ConfigRefused(file, faults)
    return config


def _syntax(text: str, said: str) -> Fault:
    match = _SYNTAX.match(said)
    reason, line = match.groups() if match else (said, None)
    return Fault(int(line) if line else text.count("\n") + 1, "", f"this is not TOML: {reason}")


def _fault(lines: dict[Path, int], data: dict[str, Any], error: Any) -> Fault:
    path = _written(data, error["loc"])
    return Fault(line_of(lines, path), _dotted(path), reason_of(error))


def _written(data: Any, location: tuple[int | str, ...]) -> Path:
    """The part of pydantic's location that stands in the file: without the names of union members.

    What does not stand there is kept at the end alone, where a missing key is named.
    """
    path: list[int | str] = []
    for index, part in enumerate(location):
        if part == "[key]":
            continue
        inside = isinstance(data, dict) and part in data
        if inside or (isinstance(data, list) and isinstance(part, int) and part < len(data)):
            data = data[part]
        elif index < len(location) - 1 or part in _TYPES:
            continue
        path.append(part)
    return tuple(path)


def _dotted(path: Path) -> str:
    return ".".join(
        str(part) if isinstance(part, int) or re.fullmatch(r"[A-Za-z0-9_-]+", part) else f'"{part}"'
        for part in path
    )


# --- what one table says of another -----------------------------------------------------------


def _crossed(data: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """Names that stand for nothing. Looks at what the file says, so that other faults do not hide these."""
    providers = _table(data.get("providers"))
    for path, model in _references(data):
        name = model.partition("/")[0]
        if "/" in model and name not in providers:
            known = ", ".join(providers) or "none"
            yield path, f"there is no provider {name!r}; there are: {known}"
    default = _table(data.get("dispatch")).get("default_provider")
    if isinstance(default, str) and default not in providers:
        yield ("dispatch", "default_provider"), f"there is no provider {default!r}"
    for alias in _table(data.get("aliases")):
        if alias in providers:
            yield ("aliases", alias), "a provider has this name already"
    for name, provider in providers.items():
        table = _table(provider)
        if table.get("key_env") and table.get("key_file"):
            yield ("providers", name, "key_file"), "keys come from `key_env` or `key_file`, not from both"


def _references(data: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    for alias, table in _table(data.get("aliases")).items():
        for field in ("candidates", "fallbacks_context", "fallbacks_policy"):
            items = _table(table).get(field)
            for index, item in enumerate(items if isinstance(items, list) else ()):
                path: Path = ("aliases", alias, field, index)
                if isinstance(item, str):
                    yield path, item
                elif isinstance(model := _table(item).get("model"), str):
                    yield (*path, "model"), model
    for model in _table(data.get("prices")):
        yield ("prices", model), model


def _keyless(data: dict[str, Any], secrets: Secrets) -> Iterator[tuple[Path, str]]:
    for name, provider in _table(data.get("providers")).items():
        for field, read in (("key_env", secrets.of_variable), ("key_file", secrets.of_file)):
            said = _table(provider).get(field)
            path: Path = ("providers", name, field)
            listed = (
                [((*path, index), one) for index, one in enumerate(said)] if isinstance(said, list) else []
            )
            for place, one in listed or [(path, said)]:
                try:
                    if isinstance(one, str):
                        read(one)
                except NoSecret as error:
                    yield place, str(error)


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
