"""How far long work is, as a bar on a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn


@contextmanager
def progress_bar(out: Console, description: str) -> Iterator[Callable[[str, float], None]]:
    """A bar that is gone at the end of the block. What is yielded moves it: to a word, and from 0 to 1."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True) as progress:
        bar = progress.add_task(description, total=1.0)
        yield lambda what, done: progress.update(bar, description=what, completed=done)
