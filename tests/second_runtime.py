"""Node.js, where the machine has it: what it needs is installed once a session, from the pinned list."""

import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

FOLDER: Final = Path(__file__).parent / "node"
INSTALL_TIMEOUT_S: Final = 90.0
RUN_TIMEOUT_S: Final = 60.0


@functools.cache
def _missing() -> str | None:
    """Why Node cannot be used here, after having tried; None when it can."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "no Node.js here: what it would check a second time is checked by Python alone"
    installed, wanted = FOLDER / "node_modules" / ".package-lock.json", FOLDER / "package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= wanted.stat().st_mtime:
        return None
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
    try:
        done = subprocess.run(
            command, cwd=FOLDER, capture_output=True, text=True, check=False, timeout=INSTALL_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return f"npm had not installed the pinned packages after {INSTALL_TIMEOUT_S:g} s"
    if done.returncode == 0:
        return None
    return f"npm cannot install the pinned packages: {done.stderr.strip()[-300:]}"


def require_node() -> None:
    """Skip the test, with the reason, where Node.js or its packages cannot be had."""
    if (reason := _missing()) is not None:
        pytest.skip(reason)


def run_node(script: str, *arguments: str | Path, **environment: str) -> str:
    """What a script of `tests/node` prints. It must end well, and soon."""
    return _run(["node", script, *map(str, arguments)], environment)


def run_tsc(*files: Path) -> str:
    """Compile TypeScript strictly, without writing anything; what the compiler says."""
    options = ["--noEmit", "--strict", "--target", "es2022", "--module", "esnext"]
    compiler = FOLDER / "node_modules" / ".bin" / "tsc"
    return _run([str(compiler), *options, "--moduleResolution", "bundler", *map(str, files)], {})


def _run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        cwd=FOLDER,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
