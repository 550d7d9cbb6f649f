"""The supervisor with real processes: small daemons of our kit, real ports, real signals."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from services.errors import Unavailable
from stillhouse.supervisor import RunFile, RunFolder, running
from tests.processes import ROOT, free_ports

pytestmark = pytest.mark.enable_socket

HERE = Path(__file__).parent
COMMAND = (sys.executable, "-m", "tinyup")
PATIENCE_S = 30.0  # for a loaded machine; nothing here waits that long otherwise


@pytest.fixture(autouse=True)
def _signals_as_on_a_terminal() -> Iterator[None]:
    """Tests may run in the background, where shells have SIGINT ignored, and children inherit that."""
    ignored = [n for n in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(n) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


def eventually(what: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not what():
        assert time.monotonic() < deadline, f"waited {patience_s:g} s in vain"
        time.sleep(0.02)


def variables(data: Path, **more: str) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(HERE))),
        "STILLHOUSE_DATA": str(data),
        **free_ports(["one", "two"]),
        **more,
    }


class Up:
    """A supervisor as a child of the test, with its output in a file."""

    def __init__(self, data: Path, *names: str, **more: str) -> None:
        self.data = data
        self.environment = variables(data, **more)
        data.mkdir(exist_ok=True)
        self.family: set[psutil.Process] = set()
        self.log = data / f"up-{time.monotonic_ns()}.log"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen([*COMMAND, *names], env=self.environment, stdout=out, stderr=out)

    def run(self) -> RunFile:
        found = RunFolder(self.data).read()
        assert found is not None, self.text()
        self.remember()
        return found

    def remember(self) -> None:
        """Know the children for as long as they live, also when their supervisor is gone."""
        with contextlib.suppress(psutil.Error):
            self.family.update(psutil.Process(self.process.pid).children(recursive=True))

    def text(self) -> str:
        return self.log.read_text()

    def until_ready(self) -> RunFile:
        eventually(lambda: self.process.poll() is not None or "ready after" in self.text())
        assert self.process.poll() is None, self.text()
        return self.run()

    def state(self, index: int = 0) -> str:
        run = RunFolder(self.data).read()
        return run.processes[index].state if run is not None and run.processes else "none"

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@contextlib.contextmanager
def up(data: Path, *names: str, **more: str) -> Iterator[Up]:
    """Whatever the test did, nothing is left running."""
    started = Up(data, *names, **more)
    try:
        yield started
    finally:
        started.remember()
        started.process.kill()
        started.process.wait()
        for process in started.family:
            with contextlib.suppress(psutil.Error):
                process.kill()


def gone(pid: int | None) -> bool:
    assert pid is not None
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def pids(run: RunFile) -> list[int]:
    return [process.pid for process in run.processes if process.pid is not None]


def environment_of(url: str) -> dict[str, str]:
    answer: dict[str, str] = httpx.get(f"{url}/environment", trust_env=False).raise_for_status().json()
    return answer


def test_daemons_learn_where_they_and_the_others_are(tmp_path: Path) -> None:
    with up(tmp_path, "one=2", "two") as it:
        run = it.until_ready()
        ports = {f"{entry.name}.{entry.replica}": entry.port for entry in run.processes}
        one, two = int(it.environment["ONE_PORT"]), int(it.environment["TWO_PORT"])
        assert ports == {"one.1": one, "one.2": one + 100, "two.1": two}
        assert [entry.state for entry in run.processes] == ["ready"] * 3
        assert run.pid == it.process.pid
        seen = environment_of(run.processes[2].url)
        assert seen["PEER_ONE_URL"] == f"http://127.0.0.1:{one}"
        assert seen["ALL_ONE_URLS"] == f"http://127.0.0.1:{one},http://127.0.0.1:{one + 100}"
        assert seen["TWO_PORT"] == str(two)
        assert seen["STILLHOUSE_DATA"] == str(tmp_path)
        assert environment_of(run.processes[1].url)["ONE_PORT"] == str(one + 100)
        assert it.stop() == 0


def test_output_is_prefixed_line_by_line(tmp_path: Path) -> None:
    with up(tmp_path, "one=2") as it:
        run = it.until_ready()
        httpx.get(f"{run.processes[1].url}/shout?lines=3&length=5", trust_env=False)
        httpx.get(f"{run.processes[1].url}/shout?lines=1&length=9000", trust_env=False)
        assert it.stop() == 0
    lines = it.text().splitlines()
    assert lines.count("one.2      | xxxxx") == 3
    assert f"one.2      | {'x' * 8192} … (808 bytes more)" in lines
    assert all(line.startswith(("one        | ", "one.2      | ", "stillhouse | ")) for line in lines)


def test_a_killed_daemon_comes_back(tmp_path: Path) -> None:
    with up(tmp_path, "one", "two") as it:
        before = it.until_ready()
        victim, bystander = pids(before)
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: it.state() == "restarting")
        eventually(lambda: it.state() == "ready")
        after = it.run()
        assert after.processes[0].restarts == 1
        assert after.processes[0].pid != victim
        assert after.processes[1].pid == bystander
        assert httpx.get(f"{after.processes[0].url}/healthz", trust_env=False).is_success
        assert "one was ended by SIGKILL; starting it again in 0.2 s" in it.text().replace(
            "stillhouse | ", ""
        )
        assert it.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_stopping_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with up(tmp_path, "one=2", "two") as it:
        run = it.until_ready()
        assert it.stop(number) == 0
        assert all(gone(pid) for pid in pids(run))
        assert RunFolder(tmp_path).read() is None
        assert not RunFolder(tmp_path).path.exists()


def test_the_door_is_closed_before_what_is_behind_it(tmp_path: Path) -> None:
    with up(tmp_path, "one", "two") as it:
        run = it.until_ready()
        with httpx.Client(trust_env=False) as client, contextlib.ExitStack() as stack:
            response = stack.enter_context(_in_flight(client, f"{run.processes[0].url}/slow"))
            it.process.send_signal(signal.SIGTERM)
            assert response().status_code == 200  # one was still answering, two still there for it
        assert it.process.wait(PATIENCE_S) == 0
    stopped = [line.split()[0] for line in it.text().splitlines() if '"event":"stopped"' in line]
    assert stopped == ["one", "two"]


@contextlib.contextmanager
def _in_flight(client: httpx.Client, url: str) -> Iterator[Callable[[], httpx.Response]]:
    """A request whose answer is awaited in a thread; entered once the daemon is serving it."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.get, url)
        metrics = url.rsplit("/", 1)[0] + "/metrics"
        eventually(lambda: "http_requests_in_flight 1.0" in httpx.get(metrics, trust_env=False).text)
        yield future.result


def test_a_killed_supervisor_leaves_nothing(tmp_path: Path) -> None:
    with up(tmp_path, "one", "two") as it:
        run = it.until_ready()
        it.process.kill()
        it.process.wait()
        eventually(lambda: all(gone(pid) for pid in pids(run)), patience_s=10)
        assert RunFolder(tmp_path).read() is None  # the file is there, and nobody is taken in by it
        assert RunFolder(tmp_path).path.exists()


def test_a_taken_port_is_reported_with_its_holder(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        with up(tmp_path, "one", "two", TWO_PORT=port) as it:
            assert it.process.wait(PATIENCE_S) == 1
            assert f"two: port {port} is taken by pid {os.getpid()}" in it.text()
            assert "starting" not in it.text()


def test_one_data_folder_has_one_supervisor(tmp_path: Path) -> None:
    with up(tmp_path, "one") as first:
        first.until_ready()
        with up(tmp_path, "one") as second:
            assert second.process.wait(PATIENCE_S) == 1
            assert f"another supervisor (pid {first.process.pid})" in second.text()
        assert first.run().processes[0].state == "ready"
        assert first.stop() == 0


def test_what_does_not_stop_is_killed_with_its_children(tmp_path: Path) -> None:
    with up(tmp_path, "one", ONE_MODULE="deaf", STOP_S="0.3") as it:
        eventually(lambda: "deaf with" in it.text())
        child = int(it.text().split("deaf with ")[1].split()[0])
        (pid,) = pids(it.run())
        assert it.stop() == 1
        assert gone(pid)
        assert gone(child)


def test_asking_twice_kills_at_once(tmp_path: Path) -> None:
    with up(tmp_path, "one", ONE_MODULE="deaf", STOP_S="600") as it:
        eventually(lambda: "deaf with" in it.text())
        (pid,) = pids(it.run())
        it.process.send_signal(signal.SIGINT)
        eventually(lambda: "stopping" in it.text())
        assert it.stop(signal.SIGINT) == 1
        assert gone(pid)


def test_a_daemon_that_cannot_start_is_tried_again_and_called_failed(tmp_path: Path) -> None:
    with up(tmp_path, "one", "two", ONE_EXITS="3") as it:
        eventually(lambda: it.state(0) == "failed")
        eventually(lambda: it.state(1) == "ready")
        assert it.run().processes[0].restarts >= 3
        restarts = it.run().processes[0].restarts
        eventually(lambda: it.run().processes[0].restarts > restarts)
        assert "one exited with status 3" in it.text()
        assert it.stop() == 0


def test_who_is_not_ready_is_named_with_the_reason(tmp_path: Path) -> None:
    with up(tmp_path, "one", "two", ONE_LACKS="roster") as it:
        eventually(lambda: "one is not ready yet: dependency: no roster here" in it.text())
        assert "two is not ready yet: dependency" not in it.text()  # it may be slow to start, no more
        assert it.state(0) == "starting"
        assert "ready after" not in it.text()
        assert it.stop() == 0


def test_a_reader_that_stops_reading_stops_no_daemon(tmp_path: Path) -> None:
    environment = variables(tmp_path)
    with subprocess.Popen([*COMMAND, "one"], env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            eventually(lambda: (run := RunFolder(tmp_path).read()) is not None and run.ready)
            url = f"http://127.0.0.1:{environment['ONE_PORT']}"
            # 20 MB that nobody takes out of the pipe
            assert httpx.get(f"{url}/shout?lines=20000&length=1000", trust_env=False, timeout=20).is_success
            assert httpx.get(f"{url}/healthz", trust_env=False).is_success
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()


def test_running_gives_ready_daemons_and_takes_them_away(tmp_path: Path) -> None:
    environment = variables(tmp_path, TWO_PORT="1")
    log = tmp_path / "up.log"
    with running(tmp_path, "one", log=log, environment=environment, command=COMMAND) as run:
        assert run.ready
        assert httpx.get(f"{run.processes[0].url}/readyz", trust_env=False).is_success
    assert all(gone(pid) for pid in [run.pid, *pids(run)])


def test_running_says_why_it_could_not(tmp_path: Path) -> None:
    environment = variables(tmp_path, ONE_PORT="70000")
    with (
        pytest.raises(Unavailable, match="65535 is the last"),
        running(tmp_path, "one", log=tmp_path / "up.log", environment=environment, command=COMMAND),
    ):
        pytest.fail("nothing runs")


HOLD = """
import sys, time
from pathlib import Path
from stillhouse.supervisor import running
data = Path(sys.argv[1])
with running(data, "one", log=data / "up.log", command=(sys.executable, "-m", "tinyup")) as run:
    time.sleep(60)
"""


def test_whoever_started_it_may_be_killed(tmp_path: Path) -> None:
    starter = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], env=variables(tmp_path))
    try:
        eventually(lambda: (run := RunFolder(tmp_path).read()) is not None and run.ready)
        run = RunFolder(tmp_path).read()
        assert run is not None
    finally:
        starter.kill()
        starter.wait()
    eventually(lambda: all(gone(pid) for pid in [run.pid, *pids(run)]))
