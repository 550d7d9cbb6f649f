"""The list of what is in a release: complete, and the same whenever it is made."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^([a-z0-9._-]+)==([^ \\;]+)", re.MULTILINE)


def sbom_of(extra: str, out: Path) -> bytes:
    command = (
        *(sys.executable, "-m", "cyclonedx_py", "requirements", f"requirements/{extra}.txt"),
        *("--output-reproducible", "--of", "JSON", "-o", str(out)),
    )
    subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.DEVNULL, timeout=60)
    return out.read_bytes()


@pytest.mark.parametrize("extra", ["gateway", "chatd"])
def test_every_pin_is_in_the_list(tmp_path: Path, extra: str) -> None:
    made = sbom_of(extra, tmp_path / "a.json")
    assert made == sbom_of(extra, tmp_path / "b.json")
    pins = set(PIN.findall((ROOT / "requirements" / f"{extra}.txt").read_text()))
    listed = json.loads(made)["components"]
    assert pins == {(each["name"], each["version"]) for each in listed}
    assert all(reference["hashes"] for each in listed for reference in each["externalReferences"])
