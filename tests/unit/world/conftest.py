"""One world of the demo's size for all tests that only read it."""

from typing import Any

import pytest

from stillhouse.world import Spec, World, generate


@pytest.fixture(scope="session")
def world() -> World:
    return generate(Spec())


@pytest.fixture(scope="session")
def workers(world: World) -> list[dict[str, Any]]:
    return [row for batch in world.roster() for row in batch.to_pylist()]
