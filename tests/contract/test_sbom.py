"""The list of what is in a release: complete, and the same whenever it is made."""

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^([a-z0-9._-]+)==([^ \\;]+)", re.MULTILINE)


def sbom_of(extra: str, out: Path) -> bytes:
    command = (
        *(sys.executable, "-m", "cyclonedx_py", "requirements", f"requirements/{extra}.txt"),
        *("--pyproject", "pyproject.toml", "--output-reproducible", "--of", "JSON", "-o", str(out)),
    )
    subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.DEVNULL, timeout=60)
    return out.read_bytes()


@pytest.mark.parametrize("extra", ["gateway", "chatd"])
def test_every_pin_is_in_the_list(tmp_path: Path, extra: str) -> None:
    made = sbom_of(extra, tmp_path / "a.json")
    assert made == sbom_of(extra, tmp_path / "b.json")
    pins = set(PIN.findall((ROOT / "requirements" / f"{extra}.txt").read_text()))
    document = json.loads(made)
    listed = document["components"]
    of = document["metadata"]["component"]
    assert (of["name"], of["version"]) == ("stillhouse", version("stillhouse"))
    assert pins == {(each["name"], each["version"]) for each in listed}
    assert all(reference["hashes"] for each in listed for reference in each["externalReferences"])


def test_every_daemon_and_extra_that_is_pinned_has_one() -> None:
    makefile = (ROOT / "Makefile").read_text()
    daemons, more = (
        re.findall(rf"^{name} :=(.*)$", makefile, re.MULTILINE)[0].split() for name in ("DAEMONS", "EXTRAS")
    )
    pinned = {path.stem for path in (ROOT / "requirements").glob("*.txt")} - {"dev", "models"}
    assert {*daemons, *more} - {"$(DAEMONS)"} == pinned
