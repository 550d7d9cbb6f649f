"""A daemon that is restarted in order, under requests: its callers wait a moment, and none is refused."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from services.testing import free_port
from tests.processes import running

pytestmark = pytest.mark.enable_socket

PATIENCE_S = 60.0
CHECK = {"kind": "json_schema", "artifact": {"a": 1}, "context": {"schema": {"type": "object"}}}


@contextmanager
def asking(url: str, path: str, body: object) -> Iterator[Counter[int]]:
    """Ask again and again from two threads; the statuses that were answered."""
    statuses: Counter[int] = Counter()
    stopped = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False) as client:
            while not stopped.is_set():
                statuses[client.post(path, json=body).status_code] += 1

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def test_callers_of_a_daemon_that_restarts_are_served(tmp_path: Path) -> None:
    port = free_port()
    env = {
        "GATEWAY_VALIDATORS_URLS": f"http://127.0.0.1:{port}",
        "GATEWAY_RESTART_WAIT_S": str(PATIENCE_S),  # a busy machine starts a process slowly
    }
    with ExitStack() as house:
        gateway = house.enter_context(running("gateway", tmp_path / "gateway", env=env))
        before, after = (house.enter_context(ExitStack()) for _ in range(2))
        before.enter_context(running("validators", tmp_path / "before", port=port))
        statuses = house.enter_context(asking(gateway.url, "/v1/validate", CHECK))
        wait_for_more(statuses)
        before.close()
        after.enter_context(running("validators", tmp_path / "after", port=port))
        wait_for_more(statuses)
    assert set(statuses) == {200}


def wait_for_more(statuses: Counter[int]) -> None:
    wanted, deadline = statuses.total() + 20, time.monotonic() + PATIENCE_S
    while statuses.total() < wanted:
        assert time.monotonic() < deadline
        time.sleep(0.01)
