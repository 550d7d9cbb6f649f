"""From what was asked for to what will run: names, replicas, ports, environments."""

import os
import secrets
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.errors import InvalidRequest
from stillhouse.supervisor.specs import LOOPBACK, WILDCARDS, DaemonSpec

REPLICAS_MAX: Final = 16
PORTS_BETWEEN_REPLICAS: Final = 100
INTERNAL_TOKEN: Final = "STILLHOUSE_INTERNAL_TOKEN"  # noqa: S105 - the variable's name


@dataclass(frozen=True, slots=True)
class Replica:
    """One process to run. `number` counts from 1."""

    spec: DaemonSpec
    number: int

    @property
    def label(self) -> str:
        """How logs and tables call it: `embedd`, `embedd.2`."""
        return self.spec.name if self.number == 1 else f"{self.spec.name}.{self.number}"

    @property
    def port(self) -> int:
        return self.spec.port + PORTS_BETWEEN_REPLICAS * (self.number - 1)

    @property
    def url(self) -> str:
        """Where this machine reaches it."""
        host = LOOPBACK if self.spec.host in WILDCARDS else self.spec.host
        return f"{self.spec.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def command(self) -> list[str]:
        # -P: otherwise the current folder comes first, which may have a `schemas` of its own.
        return [sys.executable, "-P", "-m", self.spec.module]


def replicas_of(
    specs: Sequence[DaemonSpec], names: Sequence[str], scale: Mapping[str, int]
) -> tuple[Replica, ...]:
    """The processes that run the daemons `names`, `scale` of them each (1 unless given), in table order.

    Raises `InvalidRequest` for a name that no daemon has, a scale that is out of bounds or refused, and ports
    that meet.
    """
    known = {spec.name: spec for spec in specs}
    for name in [*names, *scale]:
        if name not in known:
            raise InvalidRequest(f"there is no daemon {name!r}; there are {', '.join(known)}")
    for name, count in scale.items():
        _check_scale(known[name], count, started=name in names)
    replicas = tuple(
        Replica(spec, number)
        for spec in specs
        if spec.name in names
        for number in range(1, scale.get(spec.name, 1) + 1)
    )
    _check_ports(replicas)
    return replicas


def _check_scale(spec: DaemonSpec, count: int, *, started: bool) -> None:
    if not started:
        raise InvalidRequest(f"--scale {spec.name}={count}: {spec.name} is not among the daemons to start")
    if not 1 <= count <= REPLICAS_MAX:
        raise InvalidRequest(f"--scale {spec.name}={count}: between 1 and {REPLICAS_MAX} replicas can run")
    if count > 1 and spec.single is not None:
        raise InvalidRequest(f"--scale {spec.name}={count}: there is one {spec.name}, since {spec.single}")


def _check_ports(replicas: Sequence[Replica]) -> None:
    for replica in replicas:
        if replica.port > 65535:
            raise InvalidRequest(f"{replica.label} would listen on port {replica.port}; 65535 is the last")
    port, count = Counter(replica.port for replica in replicas).most_common(1)[0]
    if count > 1:
        labels = " and ".join(replica.label for replica in replicas if replica.port == port)
        raise InvalidRequest(f"{labels} would all listen on port {port}; set <NAME>_PORT apart")


def shared_environment(
    base: Mapping[str, str],
    specs: Sequence[DaemonSpec],
    replicas: Sequence[Replica],
    *,
    root: Path,
    data: Path,
) -> dict[str, str]:
    """The environment of every child: `base`, the import root, the data folder, a secret, and who is where.

    A daemon that is not started here is expected on its usual port, unless `base` says otherwise.
    """
    out = {**bare_environment(base, root=root), "STILLHOUSE_DATA": str(data)}
    if not any(base.get(variable) for variable in (INTERNAL_TOKEN, f"{INTERNAL_TOKEN}_FILE")):
        out[INTERNAL_TOKEN] = secrets.token_urlsafe(
            32
        )  # so that nobody on this machine passes the gateway by
    for spec in specs:
        urls = [replica.url for replica in replicas if replica.spec == spec]
        where = {variable: (urls or [Replica(spec, 1).url])[0] for variable in spec.peers}
        if spec.replicas_variable is not None:
            where[spec.replicas_variable] = ",".join(urls or [Replica(spec, 1).url])
        out = {**out, **where} if urls else {**where, **out}
    return out


def bare_environment(base: Mapping[str, str], *, root: Path) -> dict[str, str]:
    """What a child needs to run at all: `base`, and the import root."""
    return {
        **base,
        "PYTHONPATH": os.pathsep.join(part for part in (str(root), base.get("PYTHONPATH")) if part),
        "PYTHONUNBUFFERED": "1",
    }


def own_environment(shared: Mapping[str, str], replica: Replica, lifeline_fd: int) -> dict[str, str]:
    """The environment of one child: where it listens, and the pipe that tells it when we are gone."""
    return {
        **shared,
        **replica.spec.variables,
        f"{replica.spec.prefix}HOST": replica.spec.host,
        f"{replica.spec.prefix}PORT": str(replica.port),
        "STILLHOUSE_LIFELINE_FD": str(lifeline_fd),
    }
