"""What every test stands on: a clean environment, and asyncio for the asynchronous ones."""

import logging
import os
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from services.testing import share_ports

settings.register_profile("house", deadline=None)  # no test depends on how fast the machine is
settings.load_profile("house")

if (worker := os.environ.get("PYTEST_XDIST_WORKER")) is not None:
    share_ports(int(worker.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))

PREFIXES = (
    "STILLHOUSE_",
    "GATEWAY_",
    "EMBEDD_",
    "VECTORD_",
    "CHATD_",
    "DISTILL_",
    "VALIDATORS_",
    "MODELD_",
    "OLLAMA_",
)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the developer's settings, and none writes into the checkout's data folder."""
    for name in list(os.environ):
        if name.startswith(PREFIXES) or name in ("COLUMNS", "LINES"):  # a terminal has a size of its own
            monkeypatch.delenv(name)
    monkeypatch.setenv("STILLHOUSE_DATA", str(tmp_path / "data"))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True, scope="session")
def _quiet_logs() -> None:
    """Log lines of daemons in this process would only hide what pytest says."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
