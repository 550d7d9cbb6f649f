"""Single keys of a terminal, and whole lines in between."""

import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Protocol, Self

ESCAPE: Final = "\x1b"
END: Final = "\x04"
"""What Ctrl-D sends; also read where the terminal is gone."""
SEQUENCE_S: Final = 0.05
"""How long the rest of an arrow key's bytes may take to follow the first."""
SEQUENCE_BYTES_MAX: Final = 32


class Keyboard(Protocol):
    def key(self) -> str:
        """Wait for a key. `END` when there are no more."""
        ...

    def line(self, prompt: str) -> str:
        """Ask for a line of text; an empty one where there are no more."""
        ...

    def released(self) -> AbstractContextManager[None]:
        """The terminal as other programs expect it, for as long as the context lasts."""
        ...


class TerminalKeyboard:
    """The keyboard of standard input, which has to be a terminal. A context manager: it reads keys as they
    are pressed, and leaves the terminal as it was.
    """

    def __init__(self) -> None:
        self._fd = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._fd)

    def __enter__(self) -> Self:
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()

    def _take(self) -> None:
        # What was typed ahead stays: a reviewer who knows the keys is faster than the network.
        tty.setcbreak(self._fd, termios.TCSADRAIN)

    def _give_back(self) -> None:
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def key(self) -> str:
        try:
            data = os.read(self._fd, 1)
        except OSError:  # the terminal was closed
            return END
        if data == ESCAPE.encode():
            self._skip_sequence()
            return ESCAPE
        return data.decode("latin-1") or END

    def _skip_sequence(self) -> None:
        if select.select([self._fd], [], [], SEQUENCE_S)[0]:
            os.read(self._fd, SEQUENCE_BYTES_MAX)

    def line(self, prompt: str) -> str:
        with self.released():
            try:
                return input(prompt)
            except EOFError:
                return ""

    @contextmanager
    def released(self) -> Iterator[None]:
        self._give_back()
        try:
            yield
        finally:
            self._take()
