"""The roster is made once for all."""

from pathlib import Path

import pytest

from tests.bench.validators.agency import make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the roster and its orders."""
    return make_world(tmp_path_factory.mktemp("world")).parent
