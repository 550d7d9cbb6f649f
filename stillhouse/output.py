"""How commands speak: tables and colours on a terminal, plain lines elsewhere, JSON where asked for."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from stillhouse.review.visible import visible

PLAIN_WIDTH = 200  # a pipe has no width; a table cut at 80 columns would lose what a script looks for


def _writable(path: Path | None) -> Path | None:
    """A file that can be made, told before the work whose result it is to hold."""
    if path is not None and not os.access(path.absolute().parent, os.W_OK | os.X_OK):
        raise typer.BadParameter(f"{path.absolute().parent} is no folder that can be written to")
    return path


def output_file(*names: str, **options: Any) -> Any:
    """An option that names a file to write."""
    return typer.Option(*names, dir_okay=False, callback=_writable, show_default=False, **options)


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


class PlainConsole(Console):
    """Shows what a terminal would obey in texts: names and messages come from models, files and callers."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control:  # of our own tables and bars
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)


def console(*, stderr: bool = False) -> Console:
    """A console that takes no text for markup: ids and messages may contain brackets."""
    out = PlainConsole(stderr=stderr, markup=False, highlight=False)
    if not out.is_terminal:
        out.width = PLAIN_WIDTH
    return out


def print_json(value: Any) -> None:
    """Print a JSON value, indented."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())
