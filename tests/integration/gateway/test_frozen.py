"""Daemons that are stopped in their tracks: they take connections, and nothing ever comes back."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from services.testing import free_port
from tests.processes import Running, running

pytestmark = pytest.mark.enable_socket

PATIENCE_S = 60.0
CHECK = {"kind": "json_schema", "artifact": {"a": 1}, "context": {"schema": {"type": "object"}}}


@dataclass(frozen=True)
class House:
    """A gateway, and replicas of validators behind it."""

    client: httpx.Client
    replicas: list[Running]

    def check(self) -> httpx.Response:
        return self.client.post("/v1/validate", json=CHECK)

    def check_until(self, status: int) -> httpx.Response:
        deadline = time.monotonic() + PATIENCE_S
        while (answer := self.check()).status_code != status:
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.05)
        return answer


@contextmanager
def house(folder: Path, replicas: int) -> Iterator[House]:
    with ExitStack() as stack:
        ports = [free_port() for _ in range(replicas)]
        behind = [stack.enter_context(running("validators", folder / str(port), port=port)) for port in ports]
        nobody = f"http://127.0.0.1:{free_port()}"
        urls = {f"GATEWAY_{name}_URLS": nobody for name in ("EMBEDD", "VECTORD", "CHATD", "DISTILL")}
        urls["GATEWAY_VALIDATORS_URLS"] = ",".join(each.url for each in behind)
        gateway = stack.enter_context(running("gateway", folder / "gateway", env=urls))
        client = httpx.Client(base_url=gateway.url, timeout=PATIENCE_S, trust_env=False)
        yield House(stack.enter_context(client), behind)


def test_with_one_frozen_the_other_answers(tmp_path: Path) -> None:
    with house(tmp_path, 2) as it:
        assert it.check().status_code == 200
        frozen = it.replicas[0]
        frozen.process.send_signal(signal.SIGSTOP)
        try:
            answers = [it.check() for _ in range(50)]
            assert [answer.status_code for answer in answers] == [200] * 50
        finally:
            frozen.process.send_signal(signal.SIGCONT)


def test_with_all_frozen_the_answer_says_so_until_they_are_back(tmp_path: Path) -> None:
    with house(tmp_path, 1) as it:
        assert it.check().status_code == 200
        it.replicas[0].process.send_signal(signal.SIGSTOP)
        try:
            waited, at_once = it.check(), it.check()
        finally:
            it.replicas[0].process.send_signal(signal.SIGCONT)
        for answer in (waited, at_once):
            assert answer.status_code == 503, answer.text
            assert answer.json()["error"]["code"] == "validators_down"
            assert "retry-after" in answer.headers
        it.check_until(200)
