"""How the demo tells what it does: numbered steps, short lines, a bar for what takes long."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

PLAIN_EVERY_S = 5.0
INDENT = "   "


class Account:
    """Writes to one console: colours and a live bar on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._number = 0

    def step(self, title: str) -> None:
        self._number += 1
        self._console.print()
        self._console.print(f"{self._number:>2} {title}", style="bold")

    def say(self, line: str, *, style: str | None = None) -> None:
        self._console.print(f"{INDENT}{line}", style=style, soft_wrap=True)

    def warn(self, line: str) -> None:
        self.say(line, style="yellow")

    @contextlib.contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Gives a function that is told how many more are done."""
        if self._console.is_terminal:
            with self._bar() as bar:
                task = bar.add_task(f"{INDENT}{what}", total=total)
                yield lambda more: bar.advance(task, more)
        else:
            yield self._lines(what, total)

    def _bar(self) -> Progress:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        return Progress(*columns, console=self._console, transient=True)

    def _lines(self, what: str, total: int) -> Callable[[int], None]:
        done = 0
        said = time.monotonic()

        def advance(more: int) -> None:
            nonlocal done, said
            done += more
            if time.monotonic() - said >= PLAIN_EVERY_S:
                said = time.monotonic()
                self.say(f"{what}: {done:,} of {total:,}")

        return advance
