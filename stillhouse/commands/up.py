"""`stillhouse up`: runs the daemons until told to stop."""

import asyncio
import os
import re
from collections.abc import Sequence
from typing import Annotated

import typer

from services.errors import InvalidRequest
from stillhouse.output import console
from stillhouse.root import import_root
from stillhouse.settings import CliSettings, load_settings
from stillhouse.supervisor import (
    DaemonSpec,
    Fleet,
    LogOutput,
    Patience,
    Replica,
    Supervisor,
    daemon_specs,
    replicas_of,
    shared_environment,
)
from stillhouse.supervisor.probe import ollama_answers
from stillhouse.supervisor.specs import MODELD

EXAMPLES = """\
Examples:

  stillhouse up                              everything

  stillhouse up gateway embedd               just those two

  stillhouse up --scale embedd=2             two processes of embedd behind the gateway

  stillhouse up --host 0.0.0.0               open to the network; make a key first

  EMBEDD_PORT=4101 stillhouse up             another port
"""

SCALE = re.compile(r"([a-z]+)=([0-9]{1,4})")


def up(
    daemons: Annotated[
        list[str] | None, typer.Argument(help="Which to run; all unless given.", show_default=False)
    ] = None,
    scale: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=N", help="Run N processes of a daemon. May repeat.", show_default=False),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(help="Address for the gateway; the other daemons stay on loopback.", show_default=False),
    ] = None,
) -> None:
    """Run the daemons until Ctrl-C; one that dies is started again.

    modeld is run as well when no Ollama answers at OLLAMA_HOST.
    `stillhouse status`, in another terminal, shows how they are.
    """
    settings = load_settings()
    specs = daemon_specs(settings, host=host)
    notes: list[str] = []
    try:
        counts = parse_scale(scale or [])
        replicas_of(specs, daemons or [spec.name for spec in specs], counts)  # refuse before asking anybody
        names = daemons or [spec.name for spec in specs if spec.name != MODELD]
        if not daemons and not ollama_answers(settings.ollama_host):
            notes.append(f"no Ollama answers at {settings.ollama_host}; running modeld in its place")
            names = [*names, MODELD]
        replicas = replicas_of(specs, names, counts)
    except InvalidRequest as error:
        raise typer.BadParameter(error.message) from None
    raise typer.Exit(_supervise(settings, specs, replicas, notes))


def parse_scale(values: Sequence[str]) -> dict[str, int]:
    """`["embedd=2"]` as `{"embedd": 2}`. Raises `InvalidRequest` for anything that does not look so."""
    counts: dict[str, int] = {}
    for value in values:
        match = SCALE.fullmatch(value)
        if match is None:
            raise InvalidRequest(f"--scale {value}: give a daemon and a number, such as embedd=2")
        counts[match[1]] = int(match[2])
    return counts


def _supervise(
    settings: CliSettings, specs: Sequence[DaemonSpec], replicas: Sequence[Replica], notes: Sequence[str]
) -> int:
    data = settings.data.resolve()
    environment = shared_environment(os.environ, specs, replicas, root=import_root(), data=data)
    for replica in replicas:
        if replica.spec.name == MODELD:
            environment["OLLAMA_HOST"] = replica.url
    out = console()
    terminal = out.is_terminal and not out.no_color
    with LogOutput([replica.label for replica in replicas], terminal=terminal) as output:
        for note in notes:
            output.say(note)
        supervisor = Supervisor(
            Fleet(replicas, environment, data),
            output,
            patience=Patience(ready_s=settings.ready_patience_s, stop_s=settings.stop_timeout_s),
            lifeline_fd=settings.lifeline_fd,
        )
        return 0 if asyncio.run(supervisor.run()) else 1
