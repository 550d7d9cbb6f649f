"""`stillhouse up --compose deploy/compose.yaml`: the same topology as processes, asked by its gateway."""

from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from services.settings import INTERNAL_HEADER
from stillhouse.cli import app
from stillhouse.supervisor import RunFile, running
from tests.generate import DAEMONS
from tests.processes import ROOT, free_ports

pytestmark = pytest.mark.enable_socket

FILE = str(ROOT / "deploy" / "compose.yaml")
TOKEN = "0123456789abcdef-token"


def variables(folder: Path) -> dict[str, str]:
    secrets = folder / "secrets"
    secrets.mkdir()
    (secrets / "internal_token").write_text(f"{TOKEN}\n")
    return {
        **free_ports(DAEMONS),
        "STILLHOUSE_SECRETS": str(secrets),
        "DISTILL_LINES_MAX": "0",  # what the shell sets is nothing to a container: this would end distill
    }


def urls(run: RunFile, name: str) -> list[str]:
    return [process.url for process in run.processes if process.name == name]


def test_the_topology_of_the_file_serves_through_its_gateway(tmp_path: Path) -> None:
    arguments = ("gateway", "validators", "distill", "--compose", FILE, "--scale", "validators=2")
    with running(
        tmp_path / "data", *arguments, log=tmp_path / "up.log", environment=variables(tmp_path)
    ) as run:
        labels = sorted(process.name for process in run.processes)
        assert labels == ["distill", "gateway", "validators", "validators"]
        with httpx.Client(base_url=urls(run, "gateway")[0], trust_env=False, timeout=30) as client:
            asked = {"kind": "json_schema", "artifact": {}, "context": {"schema": {"type": "object"}}}
            answers = [client.post("/v1/validate", json=asked) for _ in range(4)]
            assert [answer.json()["ok"] for answer in answers] == [True] * 4
        for url in urls(run, "validators"):
            assert httpx.post(f"{url}/v1/validate", json=asked, trust_env=False).status_code == 401
            shown = {INTERNAL_HEADER: TOKEN}
            assert httpx.post(f"{url}/v1/validate", json=asked, headers=shown, trust_env=False).is_success
        volumes = tmp_path / "data" / "volumes"
        assert {"gateway", "distill", "validators"} <= {folder.name for folder in volumes.iterdir()}
    assert "is not run" not in (tmp_path / "up.log").read_text()


def test_a_gateway_that_others_reach_wants_a_key_in_its_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**variables(tmp_path), "GATEWAY_BIND": "0.0.0.0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STILLHOUSE_DATA", str(tmp_path))
    result = CliRunner().invoke(
        app, ["up", "gateway", "--compose", FILE], env={"COLUMNS": "300", "NO_COLOR": "1"}
    )
    volume = tmp_path / "volumes" / "gateway"
    assert result.exit_code == 2
    assert f"`STILLHOUSE_DATA={volume} stillhouse keys create --name NAME`" in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--compose", FILE, "--host", "0.0.0.0"], "the file says where the gateway is published"),
        (["--profile", "scale"], "--profile goes with --compose"),
        (["--compose", "none.yaml"], "none.yaml cannot be read"),
        (["--compose", FILE], "the secret 'internal_token' has no file"),
        (["--compose", FILE, "--scale", "vectord=2"], "there is one vectord"),
        (["--compose", FILE, "ollama"], "there is no daemon 'ollama'"),
        (["--compose", FILE, "--profile", "scal"], "no profile 'scal'"),
    ],
)
def test_what_cannot_be_run_is_refused(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLHOUSE_SECRETS", str(tmp_path))
    result = CliRunner().invoke(app, ["up", *arguments], env={"COLUMNS": "300", "NO_COLOR": "1"})
    assert (result.exit_code, said in result.output) == (2, True), result.output
