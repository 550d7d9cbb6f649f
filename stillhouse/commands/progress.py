"""How far long work is: a bar on a terminal, lines elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

LINES: Final = 10
"""Into which the whole is parted where there is no bar."""

Report = Callable[[str, float], None]
"""Told what is being done, and how much of it is, from 0 to 1."""


@contextmanager
def progress(out: Console, name: str) -> Iterator[Report]:
    """Tell on `out` how far the block is. A bar is gone at its end; lines come one a tenth."""
    if not out.is_terminal:
        yield _lines(out, name)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True) as bars:
        bar = bars.add_task(name, total=1.0)
        yield lambda what, done: bars.update(bar, description=what, completed=done)


def _lines(out: Console, name: str) -> Report:
    told = -1

    def report(what: str, done: float) -> None:
        nonlocal told
        reached = int(done * LINES)
        if reached != told:
            told = reached
            out.print(f"{what if what.startswith(name) else f'{name}, {what}'}: {reached / LINES:.0%}")

    return report
