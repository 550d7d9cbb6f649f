"""The children's output on ours: prefixed, bounded, readable on a terminal, never in anybody's way."""

import json
import os
import queue
import threading
from collections.abc import Iterable, Iterator
from itertools import cycle
from typing import Any, Final, Self

LINE_BYTES_MAX: Final = 8192
QUEUE_MAX: Final = 10_000
FLUSH_TIMEOUT_S: Final = 2.0

RESET: Final = "\x1b[0m"
DIM: Final = "\x1b[2m"
LEVELS: Final = {"warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m"}
PALETTE: Final = (
    "\x1b[36m",
    "\x1b[32m",
    "\x1b[35m",
    "\x1b[34m",
    "\x1b[33m",
    "\x1b[96m",
    "\x1b[92m",
    "\x1b[95m",
)
SHOWN_APART: Final = frozenset({"ts", "level", "event", "daemon", "exception"})

SUPERVISOR: Final = "stillhouse"


class LineSplitter:
    """Cuts a stream of bytes into lines. A line longer than the bound is cut, and says by how much."""

    def __init__(self, *, line_bytes_max: int = LINE_BYTES_MAX) -> None:
        self._max = line_bytes_max
        self._line = bytearray()
        self._dropped = 0

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The lines that end within `chunk`."""
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            self._take(part)
            yield self._end()
        self._take(rest)

    def close(self) -> Iterator[str]:
        """What came after the last line's end, if anything did."""
        if self._line or self._dropped:
            yield self._end()

    def _take(self, part: bytes) -> None:
        room = self._max - len(self._line)
        self._line += part[:room]
        self._dropped += max(0, len(part) - room)

    def _end(self) -> str:
        text = self._line.decode(errors="replace").rstrip("\r")
        if self._dropped:
            text += f" … ({self._dropped} bytes more)"
        self._line.clear()
        self._dropped = 0
        return text


def _printable(text: str) -> str:
    """The text without what would move the cursor or change the colours of a terminal."""
    return "".join(char if char.isprintable() or char == "\t" else "\ufffd" for char in text)


def _parsed(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "event" in value else None


def readable(line: str) -> list[str]:
    """A JSON log line as a person reads it: time, level, event, fields; a traceback on lines of its own.

    Any other line is returned as it is, less its control characters.
    """
    event = _parsed(line)
    if event is None:
        return [_printable(line)]
    level = str(event.get("level", "info"))
    fields = " ".join(f"{key}={value}" for key, value in event.items() if key not in SHOWN_APART)
    colour = LEVELS.get(level, "")
    head = f"{DIM}{str(event.get('ts', ''))[11:19]}{RESET} {colour}{_printable(level):<7}{RESET}"
    text = f"{head} {_printable(str(event['event']))} {DIM}{_printable(fields)}{RESET}"
    return [text, *(_printable(part) for part in str(event.get("exception", "")).splitlines())]


class LogOutput:
    """Writes lines to a file descriptor from a thread of its own. A context manager.

    `put` never waits: when the reader of our output stops reading, lines are dropped and counted, since a
    child that waits for its log to be read has stopped serving. `terminal` asks for colours and readable
    lines; otherwise lines pass as they are, behind their prefix.
    """

    def __init__(
        self, labels: Iterable[str], *, terminal: bool, fd: int = 1, queue_max: int = QUEUE_MAX
    ) -> None:
        names = [SUPERVISOR, *labels]
        width = max(map(len, names))
        colours = cycle(PALETTE)
        self._prefixes = {
            name: f"{next(colours)}{name:<{width}} |{RESET} " if terminal else f"{name:<{width}} | "
            for name in names
        }
        self._terminal = terminal
        self._fd = fd
        self._queue: queue.Queue[tuple[str, str] | None] = queue.Queue(queue_max)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="log-output", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._queue.put(None, timeout=FLUSH_TIMEOUT_S)
        except queue.Full:
            return  # nobody reads; the thread is a daemon and ends with the process
        self._thread.join(FLUSH_TIMEOUT_S)

    def put(self, label: str, line: str) -> None:
        """Hand over one line of the process `label`."""
        try:
            self._queue.put_nowait((label, line))
        except queue.Full:
            self._dropped += 1

    def say(self, line: str) -> None:
        """Hand over a line of the supervisor's own."""
        self.put(SUPERVISOR, line)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            label, line = item
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                self._write(SUPERVISOR, [f"{dropped} lines were dropped: our output was not read in time"])
            plain = not self._terminal or label == SUPERVISOR
            self._write(label, [line] if plain else readable(line))

    def _write(self, label: str, lines: Iterable[str]) -> None:
        data = "".join(f"{self._prefixes[label]}{line}\n" for line in lines).encode(errors="replace")
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            return  # our output is closed; the daemons serve on
