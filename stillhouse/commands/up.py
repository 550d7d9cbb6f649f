"""`stillhouse up`: runs the daemons until told to stop."""

import asyncio
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from services.errors import InvalidRequest
from services.keys import KeyStore
from services.settings import is_loopback
from stillhouse.output import console
from stillhouse.root import import_root
from stillhouse.settings import CliSettings, load_settings
from stillhouse.supervisor import (
    Fleet,
    LogOutput,
    Patience,
    Replica,
    Supervisor,
    bare_environment,
    daemon_specs,
    read_compose,
    replicas_of,
    shared_environment,
    topology,
)
from stillhouse.supervisor.probe import ollama_answers
from stillhouse.supervisor.specs import GATEWAY, MODELD

EXAMPLES = """\
Examples:

  stillhouse up                              everything

  stillhouse up gateway embedd               just those two

  stillhouse up --scale embedd=2             two processes of embedd behind the gateway

  stillhouse up --host 0.0.0.0               open to the network; make a key first

  EMBEDD_PORT=4101 stillhouse up             another port

  stillhouse up --compose deploy/compose.yaml --scale embedd=3
                                             what Docker Compose would run, as processes
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
    compose: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Run the daemons of a Docker Compose file as processes, with the environment it gives them.",
            show_default=False,
        ),
    ] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A profile of that file to turn on. May repeat.", show_default=False
        ),
    ] = None,
) -> None:
    """Run the daemons until Ctrl-C; one that dies is started again.

    modeld is run as well when no Ollama answers at OLLAMA_HOST.
    `stillhouse status`, in another terminal, shows how they are.
    """
    if compose is not None and host is not None:
        raise typer.BadParameter("--host: with --compose, the file says where the gateway is published")
    if compose is None and profile:
        raise typer.BadParameter("--profile goes with --compose")
    settings = load_settings()
    names = daemons or []
    try:
        counts = parse_scale(scale or [])
        if compose is not None:
            plan = _composed(settings, compose, names, counts, profile or [])
        else:
            plan = _usual(settings, names, counts, host)
    except InvalidRequest as error:
        raise typer.BadParameter(error.message) from None
    raise typer.Exit(_supervise(settings, plan))


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run, in which environment, and what to say before."""

    replicas: Sequence[Replica]
    environment: Mapping[str, str]
    notes: Sequence[str] = ()


def _usual(
    settings: CliSettings, daemons: Sequence[str], counts: Mapping[str, int], host: str | None
) -> Plan:
    """The daemons that were asked for, or all, with modeld where no Ollama answers."""
    specs = daemon_specs(settings, host=host)
    if "gateway" in (daemons or ["gateway"]):
        _check_keys(settings.data, host or settings.gateway_host)
    replicas_of(specs, daemons or [spec.name for spec in specs], counts)  # refuse before asking anybody
    names = list(daemons) or [spec.name for spec in specs if spec.name != MODELD]
    notes: list[str] = []
    if not daemons and not ollama_answers(settings.ollama_host):
        notes.append(f"no Ollama answers at {settings.ollama_host}; running modeld in its place")
        names = [*names, MODELD]
    replicas = replicas_of(specs, names, counts)
    environment = shared_environment(
        os.environ, specs, replicas, root=import_root(), data=settings.data.resolve()
    )
    for replica in replicas:
        if replica.spec.name == MODELD:
            environment["OLLAMA_HOST"] = replica.url
    return Plan(replicas, environment, notes)


def _check_keys(data: Path, host: str) -> None:
    """A gateway that others can reach needs keys: better said here than by one that starts over and over."""
    if not is_loopback(host) and not KeyStore(data).load():
        raise InvalidRequest(
            f"{host} is reachable from other machines, and there are no keys yet; make one with"
            f" `STILLHOUSE_DATA={data} stillhouse keys create --name NAME`"
        )


def _composed(
    settings: CliSettings,
    file: Path,
    daemons: Sequence[str],
    counts: Mapping[str, int],
    profiles: Sequence[str],
) -> Plan:
    """The daemons of a Compose file, which see nothing but what the file gives them."""
    specs = daemon_specs(settings)
    found = topology(
        read_compose(file, os.environ, profiles=profiles),
        file.resolve().parent,
        specs,
        data=settings.data.resolve(),
        names=daemons,
        scale=counts,
    )
    for replica in found.replicas:
        if replica.spec.name == GATEWAY:
            _check_keys(Path(replica.spec.variables["STILLHOUSE_DATA"]), replica.spec.host)
    for folder in found.folders:
        folder.mkdir(parents=True, exist_ok=True)
    prefixes = ("STILLHOUSE_", "OLLAMA_", *(spec.prefix for spec in specs))
    base = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    return Plan(found.replicas, bare_environment(base, root=import_root()), found.notes)


def parse_scale(values: Sequence[str]) -> dict[str, int]:
    """`["embedd=2"]` as `{"embedd": 2}`. Raises `InvalidRequest` for anything that does not look so."""
    counts: dict[str, int] = {}
    for value in values:
        match = SCALE.fullmatch(value)
        if match is None:
            raise InvalidRequest(f"--scale {value}: give a daemon and a number, such as embedd=2")
        counts[match[1]] = int(match[2])
    return counts


def _supervise(settings: CliSettings, plan: Plan) -> int:
    out = console()
    terminal = out.is_terminal and not out.no_color
    with LogOutput([replica.label for replica in plan.replicas], terminal=terminal) as output:
        for note in plan.notes:
            output.say(note)
        supervisor = Supervisor(
            Fleet(plan.replicas, plan.environment, settings.data.resolve()),
            output,
            patience=Patience(ready_s=settings.ready_patience_s, stop_s=settings.stop_timeout_s),
            lifeline_fd=settings.lifeline_fd,
        )
        return 0 if asyncio.run(supervisor.run()) else 1
