"""Full text: which rows of a shard have words that begin so, from an index that lies beside its columns.

SQLite's FTS5 keeps no texts, no positions and no counts here, only which rows have which words: some 100
bytes a piece. It is asked for candidates; whoever asks reads their lines and decides. Where Python's SQLite
was built without FTS5 there is no index, and lines are read instead.
"""

import errno
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import structlog
from numpy.typing import NDArray

from distill.engine.sources import turn
from services import files

log = structlog.get_logger(__name__)

SUFFIX: Final = ".words-1"
"""What is laid out otherwise gets another number, so that nobody reads the one for the other."""

TABLE: Final = """
create virtual table texts using fts5 (text, content='', detail=none, tokenize="ascii tokenchars '_'")
"""

NOT_ASCII: Final = re.compile(r"[^\x01-\x7f]")
WORD: Final = re.compile(r"\w+")

Rows = NDArray[np.int64]
Json = Mapping[str, Any]


def path_of(index: Path, scored: Path) -> Path:
    """Where the words of a shard lie, whose categories are in the file `scored`."""
    return index / f"{scored.stem}{SUFFIX}"


def text_of(evidence: Json) -> str:
    """What a person would read of a piece: what was asked and shown, and what was answered."""
    return "\n".join(_texts(evidence))


def _texts(evidence: Json) -> Iterator[str]:
    for message in evidence["input"]["messages"]:
        yield turn.text_of(message.get("content")) or ""
        yield from _arguments(message)
    for shown in evidence["input"]["retrieved_context"]:
        yield shown["text"]
    output = evidence["output"]
    if output is not None:
        yield output["content"] or ""
        yield from _arguments(output)


def _arguments(message: Json) -> Iterator[str]:
    """What a message calls tools with, which is JSON as text."""
    for call in message.get("tool_calls") or ():
        function = call.get("function") if isinstance(call, dict) else None
        arguments = function.get("arguments") if isinstance(function, dict) else None
        yield arguments if isinstance(arguments, str) else ""


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether this Python's SQLite can do it."""
    with closing(sqlite3.connect(":memory:")) as db:
        try:
            db.execute(TABLE)
        except sqlite3.OperationalError:
            return False
    return True


def write(path: Path, texts: Iterable[str]) -> None:
    """Index texts by their place, and put the index in place whole or not at all. Raises `OSError`."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        _fill(temporary, texts)
    except sqlite3.Error as error:
        raise OSError(errno.EIO, f"the index of words cannot be written: {error}") from error
    with temporary.open("r+b") as file:
        files.put_in_place(file, temporary, path)


def _fill(path: Path, texts: Iterable[str]) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("pragma journal_mode = off")
        db.execute("pragma synchronous = off")
        db.execute(TABLE)
        db.execute("begin")
        db.executemany(
            "insert into texts (rowid, text) values (?, ?)",
            ((row, _folded(text)) for row, text in enumerate(texts)),
        )
        db.execute("commit")


def rows_with(path: Path, words: Sequence[str]) -> Rows | None:
    """The rows that have words beginning like all of these; None where the index cannot tell."""
    tokens = [token for word in words for token in WORD.findall(word.casefold())]
    if not tokens or not path.exists():
        return None
    query = " ".join(f'"{_folded(token)}"*' for token in tokens)
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
            found = db.execute("select rowid from texts where texts match ?", (query,)).fetchall()
    except sqlite3.DatabaseError as error:
        log.warning("the index of words cannot be read", file=path.name, reason=str(error))
        return None
    return np.array(found, np.int64).reshape(-1)


def has_all(text: str, words: Sequence[str]) -> bool:
    """Whether a text has words that begin like each of these, in whatever case."""
    folded = text.casefold()
    return all(_pattern(word).search(folded) is not None for word in words)


@lru_cache(maxsize=256)
def _pattern(word: str) -> re.Pattern[str]:
    folded = word.casefold()
    start = r"(?<!\w)" if WORD.match(folded) else ""
    return re.compile(start + re.escape(folded))


def _folded(text: str) -> str:
    """The text in one case and in ASCII, character by character: beginnings stay beginnings."""
    return NOT_ASCII.sub(_ascii, text.casefold())


def _ascii(found: re.Match[str]) -> str:
    char = found[0]
    return f"z{ord(char):x}z" if WORD.match(char) else " "
