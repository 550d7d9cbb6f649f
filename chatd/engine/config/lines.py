"""Where in a TOML file each key and value stands, which `tomllib` does not tell."""

import re
import tomllib
from typing import Final

Path = tuple[int | str, ...]

_KEY: Final = re.compile(r'[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'')
_STRING: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'', re.DOTALL
)
_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SCALAR: Final = re.compile(r"[^\s,\]}#](?:[^,\]}#\n]*[^\s,\]}#])?")


def lines_of(text: str) -> dict[Path, int]:
    """The line, from 1, of every table, key and item of a text that `tomllib` takes."""
    return _Walk(text).lines


def line_of(lines: dict[Path, int], path: Path) -> int:
    """The line of a path, or of the nearest thing around it."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


class _Walk:
    """Goes over a valid text once; it need not refuse anything."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self._text = text
        self._at = 0
        self._line, self._counted = 1, 0
        table: Path = ()
        while not self._ended():
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _ended(self) -> bool:
        self._skip()
        return self._at >= len(self._text)

    def _skip(self) -> None:
        match = _BLANK.match(self._text, self._at)
        assert match is not None  # it may be empty
        self._at = match.end()

    def _mark(self, path: Path) -> None:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        self.lines.setdefault(path, self._line)

    def _header(self) -> Path:
        array = self._text.startswith("[[", self._at)
        start = self._at
        self._at += 2 if array else 1
        table = self._key()
        self._at = self._text.index("]", self._at) + (2 if array else 1)
        end, self._at = self._at, start
        if array:
            count = sum(1 for path in self.lines if path[:-1] == table and isinstance(path[-1], int))
            table = (*table, count)
        for length in range(1, len(table) + 1):
            self._mark(table[:length])
        self._at = end
        return table

    def _key(self) -> Path:
        """A key, perhaps a dotted one."""
        parts: list[str] = []
        while True:
            self._skip()
            match = _KEY.match(self._text, self._at)
            assert match is not None  # the text is valid
            raw = match.group()
            parts.append(next(iter(tomllib.loads(f"{raw} = 0"))))
            self._at = match.end()
            self._skip()
            if not self._text.startswith(".", self._at):
                return tuple(parts)
            self._at += 1

    def _pair(self, table: Path) -> None:
        start = self._at
        path = (*table, *self._key())
        end, self._at = self._at, start
        for length in range(len(table) + 1, len(path) + 1):
            self._mark(path[:length])
        self._at = self._text.index("=", end) + 1
        self._value(path)

    def _value(self, path: Path) -> None:
        self._skip()
        if self._text.startswith("[", self._at):
            self._items(path)
        elif self._text.startswith("{", self._at):
            self._inline(path)
        else:
            match = _STRING.match(self._text, self._at) or _SCALAR.match(self._text, self._at)
            assert match is not None  # the text is valid
            self._at = match.end()

    def _items(self, path: Path) -> None:
        self._at += 1
        index = 0
        while not self._closes("]"):
            self._mark((*path, index))
            self._value((*path, index))
            index += 1

    def _inline(self, path: Path) -> None:
        self._at += 1
        while not self._closes("}"):
            self._pair(path)

    def _closes(self, bracket: str) -> bool:
        """Whether the array or table ends here; if not, the next item does."""
        self._skip()
        if self._text.startswith(",", self._at):
            self._at += 1
            self._skip()
        closes = self._text.startswith(bracket, self._at)
        self._at += closes
        return closes
