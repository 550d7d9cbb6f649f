"""Datasets as they lie on the disk: found by their manifests, and by nothing else."""

import os
import re
from pathlib import Path
from typing import Final

from distill.engine.places import MANIFEST, RECEIPT
from schemas.distill import DatasetPage
from schemas.evidence import DatasetManifest
from services.errors import NotFound

DATASET_ID: Final = re.compile(r"[a-z]+-[a-z]+-[0-9a-f]{16}")


def count(folder: Path) -> int:
    """How many there are. Looks at names alone, so that it may be asked often."""
    try:
        return sum(1 for name in os.listdir(folder) if DATASET_ID.fullmatch(name))  # noqa: PTH208 - no stat each
    except FileNotFoundError:
        return 0


def page(folder: Path, *, limit: int, after: str | None) -> DatasetPage:
    """Up to `limit` manifests beyond the id `after`, in the order of ids. Blocks."""
    names = sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}"))
    found = [name for name in names if DATASET_ID.fullmatch(name) and (after is None or name > after)]
    shown = found[:limit]
    return DatasetPage(
        datasets=[manifest_of(folder, name) for name in shown],
        cursor=shown[-1] if len(found) > limit else None,
    )


def manifest_of(folder: Path, dataset_id: str) -> DatasetManifest:
    """Raises `NotFound`. Blocks."""
    path = folder / dataset_id / MANIFEST
    if not DATASET_ID.fullmatch(dataset_id) or not path.is_file():
        raise NotFound(f"there is no dataset {dataset_id!r}", code="dataset_not_found")
    return DatasetManifest.model_validate_json(path.read_bytes())


def file_of(folder: Path, dataset_id: str, name: str) -> Path:
    """The path of a file that the manifest names, of the manifest or the receipt. Raises `NotFound`."""
    manifest = manifest_of(folder, dataset_id)
    if name not in (MANIFEST, RECEIPT, *(file.name for file in manifest.files)):
        raise NotFound(f"dataset {dataset_id!r} has no file {name!r}", code="file_not_found")
    return folder / dataset_id / name
