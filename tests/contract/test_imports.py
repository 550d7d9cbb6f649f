"""Importing does nothing, and our generic names belong to us alone."""

import importlib.metadata
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hatch_build import ROOTS
from tests.generate import DAEMONS, ROOT

PROBE = """
import importlib, json, socket, sys, threading
def refuse(*_, **__):
    raise AssertionError("a socket was used on import")
socket.socket.connect = socket.socket.bind = refuse
importlib.import_module(sys.argv[1])
ours = [name for name in sys.modules if name.split(".")[0] in sys.argv[2].split(",")]
print(json.dumps({"threads": threading.active_count(), "ours": ours}))
"""


@pytest.mark.parametrize("daemon", DAEMONS)
def test_importing_a_daemon_starts_nothing_and_brings_no_other_daemon(daemon: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, f"{daemon}.app", ",".join(DAEMONS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    seen = json.loads(done.stdout)
    assert seen["threads"] == 1
    assert {name.split(".")[0] for name in seen["ours"]} == {daemon}


def test_no_dependency_uses_our_import_names() -> None:
    taken = importlib.metadata.packages_distributions()
    others = {name: [dist for dist in taken.get(name, []) if dist != "stillhouse"] for name in ROOTS}
    assert {name: dists for name, dists in others.items() if dists} == {}


def test_no_pinned_requirement_is_somebody_elses_project_of_our_name() -> None:
    for page in (ROOT / "requirements").glob("*.txt"):
        names = {line.split("==")[0] for line in page.read_text().splitlines() if "==" in line}
        assert names & {*ROOTS, "deploy", "stillhouse"} == set(), page


def test_requirements_are_hashed_and_name_no_index() -> None:
    pages = list((ROOT / "requirements").glob("*.txt"))
    extras = ("vectord-lance", "vectord-qdrant", "tracing", "cli")
    assert {page.stem for page in pages} == {*DAEMONS, *extras, "dev", "models"}
    for page in pages:
        text = page.read_text()
        assert "--index-url" not in text
        assert "://" not in text
        pins = [line for line in text.splitlines() if "==" in line and not line.lstrip().startswith("#")]
        assert pins
        assert all(line.rstrip().endswith("\\") for line in pins), "every pin is followed by its hashes"


def test_the_wheel_brings_one_name(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"stillhouse"}
    for daemon in DAEMONS:
        assert f"stillhouse/_root/{daemon}/__main__.py" in names
    assert "stillhouse/_root/validators/policy.toml" in names
