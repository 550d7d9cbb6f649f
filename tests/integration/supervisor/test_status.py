"""`stillhouse status` against a supervisor's real processes, and against none."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from stillhouse.supervisor import running
from tests import processes
from tests.generate import DAEMONS

pytestmark = pytest.mark.enable_socket

HERE = Path(__file__).parent


def variables(data: Path, **more: str) -> dict[str, str]:
    return {
        **os.environ,
        **processes.free_ports([*DAEMONS, "one", "two"]),
        "PYTHONPATH": os.pathsep.join((str(processes.ROOT), str(HERE))),
        "STILLHOUSE_DATA": str(data),
        **more,
    }


def status(environment: dict[str, str]) -> tuple[int, Any]:
    result = subprocess.run(
        [sys.executable, "-m", "stillhouse", "status", "--json"],
        env=environment,
        capture_output=True,
        check=False,
    )
    return result.returncode, json.loads(result.stdout)


def test_ready_processes_and_their_figures(tmp_path: Path) -> None:
    environment = variables(tmp_path)
    command = (sys.executable, "-m", "tinyup")
    with running(tmp_path, "one=2", log=tmp_path / "up.log", environment=environment, command=command) as run:
        for _ in range(3):
            assert httpx.get(f"{run.processes[1].url}/fail", trust_env=False).status_code == 503
        code, shown = status(environment)
    assert code == 0
    assert shown["ready"] is True
    assert shown["supervisor"]["pid"] == run.pid
    assert [process["label"] for process in shown["processes"]] == ["one", "one.2"]
    for process, entry in zip(shown["processes"], run.processes, strict=True):
        assert (process["state"], process["pid"], process["port"]) == ("ready", entry.pid, entry.port)
        assert process["rss_bytes"] > 10 * 2**20
        assert process["requests_per_s"] == 0
        assert process["uptime_s"] > 0
        assert process["restarts"] == 0
    assert [process["errors_5xx"] for process in shown["processes"]] == [0, 3]


def test_without_a_supervisor_the_ports_are_asked(tmp_path: Path) -> None:
    environment = variables(tmp_path)
    lone = {
        **environment,
        "ONE_HOST": "127.0.0.1",
        "ONE_PORT": environment["GATEWAY_PORT"],
        "ONE_LACKS": "sleep",
    }
    with processes.running("tinyd", tmp_path, port=int(environment["GATEWAY_PORT"]), env=lone) as daemon:
        code, shown = status(environment)
        assert code == 1
        assert shown["supervisor"] is None
        states = {process["name"]: process["state"] for process in shown["processes"]}
        assert states.pop("gateway") == "unready"
        assert states == dict.fromkeys(["embedd", "vectord", "chatd", "distill", "validators"], "down")
        gateway = shown["processes"][0]
        assert gateway["pid"] == daemon.process.pid
        assert "no sleep here" in gateway["reason"]
