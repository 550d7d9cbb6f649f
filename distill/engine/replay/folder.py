"""Replays as they lie on the disk: finished where there is a manifest."""

from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from distill.engine.places import MANIFEST, REPLAYS
from schemas.replay import ReplayId, ReplayManifest, ReplayPage
from services.errors import NotFound

REPLAY_ID: Final = TypeAdapter(ReplayId)


def page(data: Path, *, limit: int, after: str | None) -> ReplayPage:
    """Up to `limit` manifests beyond the id `after`, in the order of ids. Blocks."""
    found = sorted(path.parent.name for path in (data / REPLAYS).glob(f"*/{MANIFEST}"))
    beyond = [name for name in found if after is None or name > after]
    shown = beyond[:limit]
    return ReplayPage(
        replays=[manifest_of(data, name) for name in shown],
        cursor=shown[-1] if len(beyond) > limit else None,
    )


def manifest_of(data: Path, replay_id: str) -> ReplayManifest:
    """Raises `NotFound` for one that is not there, or not finished. Blocks."""
    missing = NotFound(f"there is no finished replay {replay_id!r}", code="replay_not_found")
    try:
        path = data / REPLAYS / REPLAY_ID.validate_python(replay_id) / MANIFEST
        return ReplayManifest.model_validate_json(path.read_bytes())
    except (ValidationError, FileNotFoundError):
        raise missing from None


def file_of(data: Path, replay_id: str, name: str) -> Path:
    """The path of a file that the manifest names, or of the manifest. Raises `NotFound`. Blocks."""
    manifest = manifest_of(data, replay_id)
    if name not in (MANIFEST, *(file.name for file in manifest.files)):
        raise NotFound(f"replay {replay_id!r} has no file {name!r}", code="file_not_found")
    return data / REPLAYS / replay_id / name
