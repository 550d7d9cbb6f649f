"""What every test stands on: a clean environment, and asyncio for the asynchronous ones."""

import os
from pathlib import Path

import pytest

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
        if name.startswith(PREFIXES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("STILLHOUSE_DATA", str(tmp_path / "data"))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
