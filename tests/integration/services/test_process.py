"""A daemon as a process: it drains on SIGTERM, follows its supervisor, and never ends half an answer well."""

import json
import os
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.processes import Running, running, started

SLOWD = "tests.integration.services.slowd"


@pytest.fixture(autouse=True)
def _sockets(socket_enabled: None) -> None:
    """These tests talk to real ports."""


def background(url: str, into: list[httpx.Response]) -> threading.Thread:
    thread = threading.Thread(target=lambda: into.append(httpx.get(url, timeout=20, trust_env=False)))
    thread.start()
    return thread


def wait_in_flight(slowd: Running) -> None:
    while "http_requests_in_flight 1.0" not in httpx.get(f"{slowd.url}/metrics", trust_env=False).text:
        time.sleep(0.02)


@pytest.mark.parametrize("path", ["/slow/1.0", "/stream"])
def test_sigterm_lets_requests_in_flight_finish_and_turns_new_ones_away(tmp_path: Path, path: str) -> None:
    answers: list[httpx.Response] = []
    with running(SLOWD, tmp_path) as slowd, httpx.Client(base_url=slowd.url, trust_env=False) as client:
        thread = background(slowd.url + path, answers)
        wait_in_flight(slowd)
        slowd.process.terminate()
        while (late := client.get("/slow/0")).status_code == 200:  # the signal may take a moment
            time.sleep(0.01)
        assert late.status_code == 503
        assert late.json()["error"]["code"] == "draining"
        thread.join()
        assert slowd.process.wait(10) == 0
    assert answers[0].status_code == 200
    assert answers[0].text in ('{"slept":1.0}', "".join(f"{number}\n" for number in range(10)))


def test_a_crash_in_the_middle_of_an_answer_cuts_the_connection(tmp_path: Path) -> None:
    with running(SLOWD, tmp_path) as slowd, pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{slowd.url}/breaks", trust_env=False)


def test_it_stops_when_its_supervisor_is_gone(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    env = {"STILLHOUSE_LIFELINE_FD": str(read_end)}
    with started(SLOWD, tmp_path, env=env, pass_fds=[read_end]) as slowd:
        os.close(read_end)
        slowd.wait_until_healthy()
        assert json.loads(slowd.text().splitlines()[0])["event"] == "starting"
        os.close(write_end)
        assert slowd.process.wait(10) == 0
        assert "the supervisor is gone" in slowd.text()


def test_a_wrong_setting_is_named_and_ends_with_status_2(tmp_path: Path) -> None:
    with started(SLOWD, tmp_path, env={"SLOWD_PORT": "many"}) as slowd:
        assert slowd.process.wait(30) == 2
        assert json.loads(slowd.text())["setting"] == "SLOWD_PORT"
