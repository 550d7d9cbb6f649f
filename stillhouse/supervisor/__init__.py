"""Runs the daemons on one machine: `stillhouse up`, and the same for programs.

`Supervisor` runs a `Fleet` inside this process; `running` runs `stillhouse up` beside it and is what the
demo and the end-to-end tests use.
"""

from stillhouse.supervisor.background import running
from stillhouse.supervisor.compose import read_compose
from stillhouse.supervisor.logs import LogOutput
from stillhouse.supervisor.plan import Replica, bare_environment, replicas_of, shared_environment
from stillhouse.supervisor.process import Policy
from stillhouse.supervisor.runfile import ProcessEntry, RunFile, RunFolder
from stillhouse.supervisor.specs import DaemonSpec, daemon_specs
from stillhouse.supervisor.supervisor import Fleet, Patience, Supervisor
from stillhouse.supervisor.topology import topology

__all__ = [
    "DaemonSpec",
    "Fleet",
    "LogOutput",
    "Patience",
    "Policy",
    "ProcessEntry",
    "Replica",
    "RunFile",
    "RunFolder",
    "Supervisor",
    "bare_environment",
    "daemon_specs",
    "read_compose",
    "replicas_of",
    "running",
    "shared_environment",
    "topology",
]
