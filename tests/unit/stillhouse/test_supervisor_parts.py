"""Parts of the supervisor that need no process: the plan, the log lines, the counts."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import InvalidRequest
from stillhouse.settings import CliSettings
from stillhouse.supervisor.logs import LineSplitter, LogOutput, readable
from stillhouse.supervisor.plan import replicas_of, shared_environment
from stillhouse.supervisor.runfile import RunFile, RunFolder
from stillhouse.supervisor.specs import daemon_specs
from stillhouse.supervisor.watch import count_requests

ALL = ["gateway", "embedd", "vectord", "chatd", "distill", "validators", "modeld"]


def test_ports_are_those_of_the_contract() -> None:
    replicas = replicas_of(daemon_specs(CliSettings()), ALL, {"embedd": 3})
    assert [(replica.label, replica.port) for replica in replicas] == [
        ("gateway", 3100),
        ("embedd", 3101),
        ("embedd.2", 3201),
        ("embedd.3", 3301),
        ("vectord", 3102),
        ("chatd", 3103),
        ("distill", 3104),
        ("validators", 3105),
        ("modeld", 11435),
    ]


def test_everybody_learns_where_everybody_is(tmp_path: Path) -> None:
    specs = daemon_specs(CliSettings(embedd_port=4101))
    replicas = replicas_of(specs, ["gateway", "embedd"], {"embedd": 2})
    base = {
        "CHATD_DISTILL_URL": "http://elsewhere:1",
        "VECTORD_EMBEDD_URL": "http://stale:1",
        "PYTHONPATH": "/x",
    }
    out = shared_environment(base, specs, replicas, root=tmp_path, data=tmp_path / "d")
    assert out["GATEWAY_EMBEDD_URLS"] == "http://127.0.0.1:4101,http://127.0.0.1:4201"
    assert out["VECTORD_EMBEDD_URL"] == "http://127.0.0.1:4101"  # started here, so this is where it is
    assert out["CHATD_DISTILL_URL"] == "http://elsewhere:1"  # not started here, so the user knows better
    assert out["CHATD_VECTORD_URL"] == out["GATEWAY_VECTORD_URLS"] == "http://127.0.0.1:3102"
    assert out["PYTHONPATH"] == f"{tmp_path}{os.pathsep}/x"
    assert out["STILLHOUSE_DATA"] == str(tmp_path / "d")


def test_everybody_shares_a_secret(tmp_path: Path) -> None:
    def environment(base: dict[str, str]) -> dict[str, str]:
        return shared_environment(base, (), (), root=tmp_path, data=tmp_path)

    made = [environment({})["STILLHOUSE_INTERNAL_TOKEN"] for _ in range(2)]
    assert made[0] != made[1]
    assert min(map(len, made)) >= 32
    own = {"STILLHOUSE_INTERNAL_TOKEN": "of-whoever-runs-it"}
    assert environment(own)["STILLHOUSE_INTERNAL_TOKEN"] == own["STILLHOUSE_INTERNAL_TOKEN"]
    assert "STILLHOUSE_INTERNAL_TOKEN" not in environment({"STILLHOUSE_INTERNAL_TOKEN_FILE": "/run/secret"})


def test_only_the_gateway_listens_beyond_loopback() -> None:
    specs = daemon_specs(CliSettings(), host="0.0.0.0")
    assert [spec.name for spec in specs if spec.host != "127.0.0.1"] == ["gateway"]
    assert replicas_of(specs, ["gateway"], {})[0].url == "http://127.0.0.1:3100"
    six = replicas_of(daemon_specs(CliSettings(), host="::"), ["gateway"], {})
    assert six[0].url == "http://127.0.0.1:3100"


@pytest.mark.parametrize("name", ["gateway", "vectord", "distill", "modeld"])
def test_daemons_that_own_something_are_not_scaled(name: str) -> None:
    specs = daemon_specs(CliSettings())
    replicas_of(specs, ALL, {name: 1})
    with pytest.raises(InvalidRequest, match=f"there is one {name}, since"):
        replicas_of(specs, ALL, {name: 2})


def test_a_replica_beyond_the_last_port_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="65535"):
        replicas_of(daemon_specs(CliSettings(embedd_port=65500)), ["embedd"], {"embedd": 2})


@given(st.lists(st.binary(max_size=40).filter(lambda part: b"\n" not in part)), st.integers(1, 7))
def test_lines_are_the_same_however_they_arrive(lines: list[bytes], step: int) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    whole = list(LineSplitter(line_bytes_max=20).feed(stream))
    splitter = LineSplitter(line_bytes_max=20)
    pieces = [line for at in range(0, len(stream), step) for line in splitter.feed(stream[at : at + step])]
    assert pieces == whole
    assert len(whole) == len(lines)
    assert list(splitter.close()) == []


def test_a_long_line_is_cut_and_says_so() -> None:
    splitter = LineSplitter(line_bytes_max=4)
    assert list(splitter.feed(b"abcdefg\nok\nrest")) == ["abcd … (3 bytes more)", "ok"]
    assert list(splitter.close()) == ["rest"]


def test_a_json_line_is_readable_and_cannot_move_the_cursor() -> None:
    line = '{"event":"request","level":"error","ts":"2026-12-01T10:20:30Z","status":500,"path":"\\u001b[2J"}'
    (text,) = readable(line)
    assert "10:20:30" in text
    assert "request" in text
    assert "status=500" in text
    assert "\x1b[2J" not in text


def test_a_traceback_gets_lines_of_its_own() -> None:
    assert readable('{"event":"failed","exception":"Traceback\\n  here"}')[1:] == ["Traceback", "  here"]


@pytest.mark.parametrize("line", ["plain", "{broken", "[1]", '{"no":"event"}', ""])
def test_other_lines_pass_as_they_are(line: str) -> None:
    assert readable(line) == [line]


def test_lines_that_nobody_reads_are_dropped_and_counted() -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    with LogOutput(["one"], terminal=False, fd=write_end, queue_max=10) as output:
        started = time.monotonic()
        for _ in range(2000):
            output.put("one", "x" * 1000)  # 2 MB into a pipe of 64 KiB
        assert time.monotonic() - started < 10  # it returned at all: `put` does not wait
        taken = b""
        while b"lines were dropped" not in taken:
            try:
                taken += os.read(read_end, 65536)
            except BlockingIOError:
                output.put("one", "awake")
                time.sleep(0.001)
    os.close(write_end)
    os.close(read_end)


def test_a_run_file_of_a_dead_supervisor_is_not_believed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.path.parent.mkdir()
    alive = {"pid": os.getpid(), "started_at": "2100-01-01T00:00:00Z", "processes": []}
    folder.write(RunFile.model_validate(alive))
    assert folder.read() is not None
    folder.write(RunFile.model_validate({**alive, "started_at": "2001-01-01T00:00:00Z"}))
    assert folder.read() is None  # the number is taken by a process that was born later


def test_requests_and_failures_are_counted_over_all_routes() -> None:
    text = (
        "# TYPE http_requests counter\n"
        'http_requests_total{route="/a",method="GET",status="200"} 5\n'
        'http_requests_total{route="/b",method="GET",status="503"} 2\n'
        "# TYPE other counter\n"
        "other_total 9\n"
    )
    counters = count_requests(text, at_s=1.0)
    assert counters is not None
    assert (counters.requests, counters.errors) == (7, 2)
    assert count_requests("<html>", at_s=1.0) is None


def test_a_gateway_with_a_certificate_is_asked_by_https() -> None:
    specs = daemon_specs(CliSettings(gateway_tls_certificate=Path("certificate.pem")))
    gateway, embedd = replicas_of(specs, ["gateway", "embedd"], {})
    assert gateway.url == "https://127.0.0.1:3100"
    assert embedd.url == "http://127.0.0.1:3101"
