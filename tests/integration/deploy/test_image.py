"""The Dockerfile's steps, replayed: each daemon starts with nothing but its own extra."""

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from services.testing import free_port
from tests.integration.deploy.dockerfile import Image, Instruction, Stage, StepFailedError, parse
from tests.processes import ROOT, Running

pytestmark = pytest.mark.enable_socket

COMMAND_TIMEOUT_S = 60.0
UNREACHABLE = re.compile("connection|name resolution|timed out|ProxyError", re.IGNORECASE)


class Replayed:
    """One image, as a folder."""

    def __init__(self, folder: Path, **arguments: str) -> None:
        build, final = parse((ROOT / "Dockerfile").read_text())
        first = Image(folder / "build", arguments).build(build, ROOT, {})
        self.folder = folder
        self.final: Stage = final
        self.image = Image(folder / "image", arguments).build(final, ROOT, {"build": first})
        self.image.path("/data").resolve().mkdir(exist_ok=True)

    def program(self, words: list[str]) -> list[str]:
        python, *rest = self.image.command(words)
        assert python == "python"
        return [str(self.image.path("/venv/bin/python")), *rest]

    @property
    def entry(self) -> list[str]:
        return self.program(self.final.one("ENTRYPOINT").words)

    def health(self, variables: dict[str, str]) -> int:
        """The status that the health check exits with."""
        text = self.final.one("HEALTHCHECK").text.removeprefix("CMD ")
        words = self.program(Instruction("CMD", text).words)
        return subprocess.run(words, env=variables, timeout=COMMAND_TIMEOUT_S, check=False).returncode

    def written(self) -> set[tuple[str, int]]:
        """Every file that a read-only root has, with the time of its last change."""
        roots = [self.image.path(folder).resolve() for folder in ("/app", "/venv")]
        files = [path for root in roots for path in root.rglob("*")]
        return {(str(path), path.lstat().st_mtime_ns) for path in files}

    def installed(self) -> set[str]:
        packages = (self.image.path("/venv").resolve() / "lib").glob("python*/site-packages/*.dist-info")
        return {package.name.split("-")[0].lower().replace("_", "-") for package in packages}

    @contextmanager
    def running(self, variables: dict[str, str], port: int) -> Iterator[Running]:
        log = self.folder / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                self.entry, env=variables, cwd=self.image.path("/app"), stdout=out, stderr=out
            )
        child = Running(process, f"http://127.0.0.1:{port}", log)
        try:
            child.wait_until_healthy()
            yield child
        finally:
            assert child.stop() == 0, child.text()


def required(extra: str) -> set[str]:
    """The names that an extra's requirements may install."""
    text = (ROOT / "requirements" / f"{extra}.txt").read_text()
    return {name.lower().replace("_", "-") for name in re.findall(r"^([\w.-]+)==", text, re.MULTILINE)}


def check(
    folder: Path,
    daemon: str,
    *,
    arguments: Mapping[str, str] | None = None,
    extras: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> None:
    """Build it, see that it has what it was asked for, start it as a container would, ask its health."""
    replayed = Replayed(folder, DAEMON=daemon, **(arguments or {}))
    allowed = set[str]().union(*map(required, extras or [daemon]))
    assert replayed.installed() <= allowed
    port = free_port()
    name = daemon.upper()
    own = {f"{name}_PORT": str(port), f"{name}_HOST": "127.0.0.1", **(environment or {})}
    variables = replayed.image.variables(**own)
    before = replayed.written()
    assert replayed.health(variables) == 1, "nothing runs yet"
    with replayed.running(variables, port) as child:
        assert replayed.health(variables) == 0
        assert httpx.get(f"{child.url}/healthz", trust_env=False).json() == {"status": "ok"}
        assert httpx.get(f"{child.url}/openapi.json", trust_env=False).json()["info"]["title"] == daemon
    assert replayed.written() == before, "the root file system is read-only"


@pytest.mark.timeout(300)  # packages are fetched
def test_the_gateway_runs_with_its_own_extra_alone(tmp_path: Path) -> None:
    try:
        check(tmp_path, "gateway")
    except StepFailedError as error:
        if UNREACHABLE.search(str(error)) is None:
            raise
        pytest.skip("the package index cannot be reached")


@pytest.mark.deploy
@pytest.mark.timeout(900)
@pytest.mark.parametrize("daemon", ["embedd", "vectord", "chatd", "distill", "validators"])
def test_every_daemon_runs_with_its_own_extra_alone(daemon: str, tmp_path: Path) -> None:
    check(tmp_path, daemon)


@pytest.mark.deploy
@pytest.mark.timeout(900)
@pytest.mark.parametrize("extra", ["vectord-lance", "vectord-qdrant"])
def test_vectord_runs_with_each_of_its_engines(extra: str, tmp_path: Path) -> None:
    check(tmp_path, "vectord", arguments={"EXTRA": extra}, extras=[extra])


@pytest.mark.deploy
@pytest.mark.timeout(900)
def test_modeld_runs_with_its_models(tmp_path: Path) -> None:
    check(tmp_path, "modeld", extras=["modeld", "models"])


@pytest.mark.deploy
@pytest.mark.timeout(900)
def test_an_image_can_be_made_to_send_traces(tmp_path: Path) -> None:
    collector = {"STILLHOUSE_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    check(
        tmp_path,
        "validators",
        arguments={"TRACING": "1"},
        extras=["validators", "tracing"],
        environment=collector,
    )


@pytest.mark.deploy
@pytest.mark.timeout(900)
def test_the_command_line_makes_a_key_for_the_gateway(tmp_path: Path) -> None:
    replayed = Replayed(tmp_path, DAEMON="cli", MODULE="stillhouse")
    done = subprocess.run(
        [*replayed.entry, "keys", "create", "--name", "me"],
        env=replayed.image.variables(),
        cwd=replayed.image.path("/app"),
        timeout=COMMAND_TIMEOUT_S,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "sh-" in done.stdout
    assert (replayed.image.path("/data") / "keys" / "keys.json").is_file()
