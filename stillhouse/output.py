"""How commands speak: tables and colours on a terminal, plain lines elsewhere, JSON where asked for."""

from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

PLAIN_WIDTH = 200  # a pipe has no width; a table cut at 80 columns would lose what a script looks for

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def console(*, stderr: bool = False) -> Console:
    """A console that takes no text for markup: ids and messages may contain brackets."""
    out = Console(stderr=stderr, markup=False, highlight=False)
    if not out.is_terminal:
        out.width = PLAIN_WIDTH
    return out


def print_json(value: Any) -> None:
    """Print a JSON value, indented."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())
