"""What a Compose file would run in containers, as processes of this machine.

A service built with `DAEMON=<name>` becomes that daemon, with the environment that the file gives it. What
containers alone have is mapped: names of services become loopback addresses, volumes become folders below the
data folder, secrets become their files. Services of other images are not run: whoever asks one finds it
on loopback, at the port that it publishes or else is asked at.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from services.errors import InvalidRequest
from stillhouse.supervisor.compose import ComposeFile, Service
from stillhouse.supervisor.plan import Replica, replicas_of
from stillhouse.supervisor.specs import LOOPBACK, DaemonSpec, usual_port

DATA_INSIDE: Final = "/data"
"""Where the images have their data folder."""
SECRETS_INSIDE: Final = PurePosixPath("/run/secrets")
NAMED_VOLUME: Final = re.compile(r"[A-Za-z0-9][\w.-]*")
PUBLISHED: Final = re.compile(r"(?:\[?(?P<host>[0-9a-f.:]+?)\]?:)?(?P<outside>\d+):(?P<inside>\d+)(?:/tcp)?")


@dataclass(frozen=True, slots=True)
class Topology:
    """What to run. `folders` must exist before; `notes` are for a reader who expected containers."""

    replicas: tuple[Replica, ...]
    folders: tuple[Path, ...]
    notes: tuple[str, ...]


def topology(
    file: ComposeFile,
    folder: Path,
    specs: Sequence[DaemonSpec],
    *,
    data: Path,
    names: Sequence[str] = (),
    scale: Mapping[str, int] | None = None,
) -> Topology:
    """The processes of a file that lies in `folder`, with its volumes below `data` (absolute).

    `names` are the daemons to run (all unless given), `scale` how many of each, whatever the file says.
    Daemons that are not published listen where `specs` say. Raises `InvalidRequest` where the file
    contradicts itself: a service that is no daemon, a URL with a port that nobody listens on, a path where
    nothing is mounted.
    """
    daemons = _daemons(file, specs)
    replicas = _replicas(file, daemons, list(names) or list(daemons), scale or {})
    world = _World(file, folder, data, daemons, replicas)
    variables = {name: world.environment(name) for name in daemons}
    return Topology(
        tuple(
            replace(each, spec=replace(each.spec, variables=variables[each.spec.name])) for each in replicas
        ),
        tuple(world.volumes()),
        tuple(world.notes()),
    )


def _replicas(
    file: ComposeFile, daemons: Mapping[str, DaemonSpec], names: Sequence[str], scale: Mapping[str, int]
) -> tuple[Replica, ...]:
    """The processes to run. None, where a daemon is scaled to 0 as Compose allows."""
    counts = {name: file.services[name].deploy.replicas for name in names if name in daemons} | dict(scale)
    started = [name for name in names if name not in daemons or counts[name] > 0]
    if not started:
        raise InvalidRequest("all daemons are scaled to 0, so that nothing would run")
    running = {name: count for name, count in counts.items() if count > 0 or name not in daemons}
    return replicas_of(list(daemons.values()), started, running)


def _daemons(file: ComposeFile, specs: Sequence[DaemonSpec]) -> dict[str, DaemonSpec]:
    """The daemons of the services that are on, listening where the file publishes them."""
    found = {
        name: service.build.args["DAEMON"]
        for name, service in file.services.items()
        if "DAEMON" in service.build.args and not service.profiles
    }
    known = [spec.name for spec in specs]
    for name, daemon in found.items():
        if name != daemon or daemon not in known:
            raise InvalidRequest(
                f"the service {name!r} is built with DAEMON={daemon}; a service has the name of the daemon"
                f" that it runs, one of {', '.join(known)}"
            )
        if foreign := file.services[name].foreign:
            raise InvalidRequest(
                f"`services.{name}.{foreign[0]}` is not understood here; a process is told by"
                f" {', '.join(sorted(Service.model_fields))} alone"
            )
    return {spec.name: _published(spec, file.services[spec.name]) for spec in specs if spec.name in found}


def _published(spec: DaemonSpec, service: Service) -> DaemonSpec:
    for port in service.ports:
        if (match := PUBLISHED.fullmatch(port)) is not None:
            everywhere = "0.0.0.0"  # noqa: S104 - what Compose does
            return replace(spec, host=match["host"] or everywhere, port=int(match["outside"]))
    return replace(spec, host=LOOPBACK)


class _World:
    """Knows what stands on this machine for what the services see in their containers."""

    def __init__(
        self,
        file: ComposeFile,
        folder: Path,
        data: Path,
        daemons: Mapping[str, DaemonSpec],
        replicas: Sequence[Replica],
    ) -> None:
        self._file = file
        self._folder = folder
        self._data = data
        self._daemons = daemons
        self._replicas = replicas
        self._asked: dict[str, str] = {}

    def environment(self, name: str) -> dict[str, str]:
        """The variables of a service, as its process needs them."""
        given = {"STILLHOUSE_DATA": DATA_INSIDE, **self._file.services[name].environment}
        return {variable: self._mapped(name, variable, value) for variable, value in given.items()}

    def volumes(self) -> list[Path]:
        """The folders of the named volumes of our daemons."""
        mounts = [mount for name in self._daemons for mount in self._file.services[name].volumes]
        sources = sorted({mount.split(":")[0] for mount in mounts})
        return [self._source(source) for source in sources if NAMED_VOLUME.fullmatch(source)]

    def notes(self) -> list[str]:
        """Which services are not run here, and where they are expected."""
        return [
            f"{name} is not run, being an image"
            + (f"; it is expected at {self._asked[name]}" if name in self._asked else "")
            for name, service in self._file.services.items()
            if self._file.is_on(name) and "DAEMON" not in service.build.args
        ]

    def _mapped(self, name: str, variable: str, value: str) -> str:
        if value.startswith("/"):
            return str(self._path(name, variable, PurePosixPath(value)))
        if "://" not in value:
            return value
        every = variable.endswith("_URLS")
        found = [self._urls(variable, url.strip()) for url in value.split(",")]
        return ",".join(url for urls in found for url in (urls if every else urls[:1]))

    def _path(self, name: str, variable: str, path: PurePosixPath) -> Path:
        service = self._file.services[name]
        for mount in service.volumes:
            source, target = mount.split(":")[:2]
            if path.is_relative_to(target):
                return self._source(source) / path.relative_to(target)
        if path.parent == SECRETS_INSIDE and path.name in service.secrets and path.name in self._file.secrets:
            return self._secret(path.name)
        raise InvalidRequest(
            f"{variable}={path} of the service {name!r}: no volume and no secret is mounted there"
        )

    def _source(self, source: str) -> Path:
        if NAMED_VOLUME.fullmatch(source):
            return self._data / "volumes" / source
        return (self._folder / source).resolve()

    def _secret(self, name: str) -> Path:
        file = (self._folder / self._file.secrets[name].file).resolve()
        if not file.is_file():
            raise InvalidRequest(f"the secret {name!r} has no file {file}; write it there")
        if not os.access(file, os.R_OK):
            raise InvalidRequest(f"the secret {name!r}: this user may not read {file}")
        return file

    def _urls(self, variable: str, url: str) -> list[str]:
        """The same for every process that the host of a URL stands for; itself when it is no service."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        if host not in self._file.services:
            if "." not in host and ":" not in host and host != "localhost":
                services = ", ".join(sorted(self._file.services))
                raise InvalidRequest(f"{variable} asks {host}, which is no service; there are {services}")
            return [url]
        if not self._file.is_on(host):
            profiles = " or ".join(self._file.services[host].profiles)
            raise InvalidRequest(f"{variable} asks {host}, which runs only with the profile {profiles}")
        login = f"{parts.username or ''}:{parts.password}@" if parts.password is not None else ""
        places = self._places(variable, host, parts.port)
        return [parts._replace(netloc=f"{login}{place}").geturl() for place in places]

    def _places(self, variable: str, host: str, port: int | None) -> list[str]:
        """`address:port` of every process of a service."""
        if port is None:
            raise InvalidRequest(f"{variable} asks {host} without a port; add it to the URL")
        service = self._file.services[host]
        if host not in self._daemons:
            matches = [match for each in service.ports if (match := PUBLISHED.fullmatch(each))]
            outside = {match["inside"]: match["outside"] for match in matches}
            self._asked[host] = f"{LOOPBACK}:{outside.get(str(port), port)}"
            return [self._asked[host]]
        spec = self._daemons[host]
        inside = service.environment.get(f"{spec.prefix}PORT", str(usual_port(host)))
        if str(port) != inside:
            raise InvalidRequest(f"{variable} asks {host} at port {port}; it listens on {inside}")
        running = [replica for replica in self._replicas if replica.spec.name == host]
        return [urlsplit(replica.url).netloc for replica in running or [Replica(spec, 1)]]
