"""deploy/systemd: units that systemd takes, for every daemon, with settings that there are."""

import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.contract.test_deploy_compose import variables_of
from tests.generate import DAEMONS, ROOT, settings_type

FOLDER = ROOT / "deploy" / "systemd"
PYTHONS_OWN = {"PYTHONPATH", "PYTHONUNBUFFERED"}


def unit(name: str) -> dict[str, list[str]]:
    """The values of every key, in order; keys repeat, and no two sections share one."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in (FOLDER / name).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key].append(value)
    return found


SERVICE = unit("stillhouse@.service")
VARIABLES = dict(word.split("=", 1) for line in SERVICE["Environment"] for word in line.split())


def test_the_target_starts_every_daemon() -> None:
    wanted = " ".join(unit("stillhouse.target")["Wants"]).split()
    assert sorted(wanted) == sorted(f"stillhouse@{name}.service" for name in DAEMONS)
    assert SERVICE["PartOf"] == ["stillhouse.target"]


def test_a_daemon_is_run_as_its_module() -> None:
    assert SERVICE["ExecStart"] == ["/opt/stillhouse/bin/python -P -m %i"]
    assert all((ROOT / name / "__main__.py").is_file() for name in DAEMONS)


def test_every_setting_exists() -> None:
    known = {variable for name in DAEMONS for variable in variables_of(settings_type(name))}
    assert {name.removesuffix("_FILE") for name in VARIABLES} - PYTHONS_OWN <= known


def test_the_secret_is_a_credential() -> None:
    (credential,) = SERVICE["LoadCredential"]
    assert VARIABLES["STILLHOUSE_INTERNAL_TOKEN_FILE"] == f"%d/{credential.split(':')[0]}"


def test_data_is_where_the_unit_may_write() -> None:
    assert VARIABLES["STILLHOUSE_DATA"] == f"/var/lib/{SERVICE['StateDirectory'][0]}"
    assert SERVICE["ProtectSystem"] == ["strict"]


def test_a_daemon_may_finish_what_it_has() -> None:
    assert all(
        settings_type(name)().drain_timeout_s < float(SERVICE["TimeoutStopSec"][0]) for name in DAEMONS
    )
    assert SERVICE["Restart"] == ["always"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_a_daemon_is_exposed_to_little() -> None:
    """By systemd's own measure, from 0 to 10, which goes by all that a unit leaves open."""
    command = ["systemd-analyze", "security", "--no-pager", "--offline=yes", "--threshold=20"]
    done = subprocess.run(
        [*command, str(FOLDER / "stillhouse@.service")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-200:] + done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_them(tmp_path: Path) -> None:
    text = (FOLDER / "stillhouse@.service").read_text().replace("/opt/stillhouse/bin/python", sys.executable)
    names = [f"stillhouse@{name}.service" for name in DAEMONS]
    for name in names:
        (tmp_path / name).write_text(text)
    shutil.copy(FOLDER / "stillhouse.target", tmp_path)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *names, "stillhouse.target"],
        cwd=tmp_path,
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if "stillhouse" in line]
    assert (done.returncode, said) == (0, [])
