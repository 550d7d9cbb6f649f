"""Which ports are taken, and by whom."""

import contextlib
import errno
import socket
from collections.abc import Sequence

import psutil

from services.errors import Conflict
from stillhouse.supervisor.plan import Replica

COMMAND_CHARACTERS_MAX = 80


def obstacle(host: str, port: int) -> str | None:
    """Why no server could listen there now, or None when one could."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is no obstacle
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"port {port} is taken by {_describe(holder_of(port))}"
            return f"{host} port {port}: {error.strerror}"
    return None


def holder_of(port: int) -> psutil.Process | None:
    """The process that listens on a port, when this user may see it."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp"):
            listening = connection.status == psutil.CONN_LISTEN and connection.pid is not None
            if listening and connection.laddr and connection.laddr.port == port:
                return psutil.Process(connection.pid)
    return None


def check_ports(replicas: Sequence[Replica]) -> None:
    """Raise `Conflict` naming every daemon that cannot listen, and the holder where it can be seen."""
    obstacles = [(replica.label, obstacle(replica.spec.host, replica.port)) for replica in replicas]
    lines = [f"  {label}: {what}" for label, what in obstacles if what is not None]
    if lines:
        raise Conflict(
            "\n".join(["these daemons cannot start:", *lines, "stop the holder, or set <NAME>_PORT"])
        )


def _describe(process: psutil.Process | None) -> str:
    if process is None:
        return "a process that this user cannot see"
    command = ""
    with contextlib.suppress(psutil.Error):
        command = " ".join(process.cmdline())[:COMMAND_CHARACTERS_MAX]
    return f"pid {process.pid} ({command or 'unknown command'})"
