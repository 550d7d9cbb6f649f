"""Where the demo plays: the sample world on disk, and daemons that read it."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq

from schemas.artifacts import JobOrder
from schemas.verdicts import ValidatorList
from services.errors import Conflict
from stillhouse.client import GatewayClient
from stillhouse.settings import CliSettings
from stillhouse.supervisor import running
from stillhouse.world import Manifest, Spec, write

COLUMNS = ["worker_id", "first_name", "last_name", "status", "roles", "city", "state", "phone", "certs"]


@dataclass(frozen=True, slots=True)
class Stage:
    """The world that is played on. `workers` are rows of the roster, `notes` and `drafts` parsed lines."""

    manifest: Manifest
    order: JobOrder
    valid: tuple[str, ...]
    workers: list[dict[str, Any]]
    notes: list[dict[str, Any]]
    drafts: list[dict[str, Any]]
    roles: dict[str, Any]

    @property
    def roster(self) -> Path:
        return self.manifest.folder / "roster.parquet"


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def build_world(folder: Path, seed: int) -> Stage:
    """Generate the world of a seed into a folder and load what the demo needs of it."""
    manifest = write(folder, Spec(seed=seed))
    cast = json.loads((folder / "world.json").read_text())["demo"]
    return Stage(
        manifest=manifest,
        order=JobOrder.model_validate(cast["order"]),
        valid=tuple(cast["valid"]),
        workers=pq.read_table(folder / "roster.parquet", columns=COLUMNS).to_pylist(),
        notes=_lines(folder / "playbooks.jsonl"),
        drafts=_lines(folder / "messages.jsonl"),
        roles=json.loads((folder / "roles.json").read_text()),
    )


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/healthz", timeout=1.0, trust_env=False).is_success
    return False


@dataclass(frozen=True, slots=True)
class Crew:
    """The daemons that play: who they are, in words, and where their datasets lie, if that is known."""

    who: str
    datasets: Path | None


@contextlib.contextmanager
def daemons(settings: CliSettings, stage: Stage, folder: Path) -> Iterator[Crew]:
    """Daemons that use the stage's roster: those that run already, or ones of our own for this block.

    Our own start with an empty data folder. Raises `Conflict` when running ones use another roster, since
    its verdicts would be about other people, and `Unavailable` when our own do not start.
    """
    if _answers(settings.gateway_url):
        with GatewayClient(settings) as gateway:
            roster = gateway.get("/v1/validators", ValidatorList).roster
        if roster is None or roster.sha256 != stage.manifest.sha256["roster.parquet"]:
            raise Conflict(
                f"daemons run at {settings.gateway_url} with another roster. Stop them, and the demo starts"
                f" its own; or start them with VALIDATORS_ROSTER={stage.roster}"
            )
        yield Crew(f"using the daemons that run at {settings.gateway_url}", None)
        return
    shutil.rmtree(folder, ignore_errors=True)
    environment = {"VALIDATORS_ROSTER": str(stage.roster.resolve())}
    with running(folder, log=folder / "up.log", environment=environment) as run:
        names = " ".join(entry.name for entry in run.processes)
        yield Crew(f"started {names}; their log is {folder / 'up.log'}", folder / "datasets")
