"""`stillhouse demo`: plays the whole job on made-up data and real models."""

from importlib import import_module
from typing import Annotated, Protocol, cast

import typer
from rich.console import Console

from stillhouse.output import console
from stillhouse.settings import CliSettings, load_settings

EXAMPLES = """\
Examples:

  stillhouse demo                                 from an order to the question whether past work helps

  stillhouse demo --seed 11 --keep                another agency, and the daemons stay until Ctrl-C
"""


class Story(Protocol):
    """The module that plays it. `run` returns the exit status."""

    def run(self, settings: CliSettings, console: Console, *, keep: bool, seed: int) -> int: ...


def demo(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the daemons running until Ctrl-C.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another agency.")] = 7,
) -> None:
    """Play the whole job: retrieve, draft, validate, repair, record, export, learn."""
    # Loaded here and not above: its sample data needs libraries that no other command has a use for.
    try:
        story = cast("Story", import_module("stillhouse.demo.story"))
    except ModuleNotFoundError as error:
        console(stderr=True).print(f"The demo needs {error.name}: pip install 'stillhouse[demo]'")
        raise typer.Exit(1) from None
    raise typer.Exit(story.run(load_settings(), console(), keep=keep, seed=seed))
