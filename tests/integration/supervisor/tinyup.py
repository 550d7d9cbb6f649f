"""`stillhouse up` for daemons of the test's own: `python -m tinyup NAME[=REPLICAS]…`.

The ports are `<NAME>_PORT` in the environment; every daemon is a `tinyd`.
"""

import asyncio
import os
import sys
from pathlib import Path

from stillhouse.root import import_root
from stillhouse.supervisor import (
    DaemonSpec,
    Fleet,
    LogOutput,
    Patience,
    Policy,
    Supervisor,
    replicas_of,
    shared_environment,
)


def main(arguments: list[str]) -> int:
    counts = {name: int(count or 1) for name, _, count in (argument.partition("=") for argument in arguments)}
    specs = [
        DaemonSpec(
            name,
            os.environ.get(f"{name.upper()}_MODULE", "tinyd"),
            int(os.environ[f"{name.upper()}_PORT"]),
            stop_phase=number,
            peers=(f"PEER_{name.upper()}_URL",),
            replicas_variable=f"ALL_{name.upper()}_URLS",
        )
        for number, name in enumerate(counts)
    ]
    replicas = replicas_of(specs, list(counts), counts)
    data = Path(os.environ["STILLHOUSE_DATA"])
    environment = shared_environment(os.environ, specs, replicas, root=import_root(), data=data)
    with LogOutput([replica.label for replica in replicas], terminal=False) as output:
        supervisor = Supervisor(
            Fleet(replicas, environment, data),
            output,
            policy=Policy(failed_after=3, backoff_max_s=0.4),
            patience=Patience(ready_s=2.0, stop_s=float(os.environ.get("STOP_S", "10"))),
            lifeline_fd=int(os.environ["STILLHOUSE_LIFELINE_FD"])
            if "STILLHOUSE_LIFELINE_FD" in os.environ
            else None,
        )
        return 0 if asyncio.run(supervisor.run()) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
