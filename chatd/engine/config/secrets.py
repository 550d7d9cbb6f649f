"""Providers' keys: from variables or files, never from the configuration itself, and never in it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from chatd.engine.config.models import ProviderSpec

_KEY: Final = re.compile(r"[!-~]{1,8192}")
"""What can stand in a header."""


class NoSecret(ValueError):
    """A key that is not where it should be. Says no names: some write the key itself there."""


class Secrets:
    """`variable` looks one up by name; relative files lie beside the configuration, in `folder`."""

    def __init__(self, variable: Callable[[str], str | None], folder: Path) -> None:
        self._variable = variable
        self._folder = folder

    def of_variable(self, name: str) -> str:
        value = self._variable(name)
        if value is None or not value.strip():
            raise NoSecret("this environment variable is not set")
        return _checked(value, "this environment variable")

    def of_file(self, path: str | Path) -> str:
        try:
            return _checked((self._folder / path).read_text(), "this file")
        except (OSError, UnicodeDecodeError) as error:
            raise NoSecret(f"this file cannot be read: {type(error).__name__}") from None

    def files(self, spec: ProviderSpec) -> list[Path]:
        return [self._folder / path for path in spec.key_file]

    def of(self, spec: ProviderSpec) -> tuple[str, ...]:
        """The keys of a provider, in order. Raises `NoSecret`."""
        return (*map(self.of_variable, spec.key_env), *map(self.of_file, spec.key_file))


def _checked(value: str, source: str) -> str:
    key = value.strip()
    if _KEY.fullmatch(key) is None:
        raise NoSecret(f"{source} holds no key: a key is one line of printable ASCII without spaces")
    return key
