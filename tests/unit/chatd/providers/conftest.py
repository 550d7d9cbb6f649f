"""Helpers of the providers' tests: requests, and answers put together."""

import pytest


@pytest.fixture(autouse=True)
def _sockets(socket_enabled: None) -> None:
    """These tests talk to stub servers on real ports."""
