"""Reviewers at a real terminal: `stillhouse distill review` in a pseudo-terminal, before a real distill."""

import os
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
import pytest
from typer.testing import CliRunner, Result

from services.testing import free_port
from stillhouse.cli import app
from tests.processes import ROOT, Running, running
from tests.unit.distill.builders import Json, lines, ndjson, run, verdict

pytestmark = pytest.mark.enable_socket

ANY_DISK: Final = {"DISTILL_DISK_FREE_BYTES_MIN": "0"}
PATIENCE_S: Final = 60.0
ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
IN_CONTROL: Final = """
import fcntl, runpy, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C reaches the program
runpy.run_module("stillhouse", run_name="__main__", alter_sys=True)
"""
SPLITS: Final = ("train", "validation", "holdout")


class Terminal:
    """A program in a terminal of its own: what is typed into it, and what it shows."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int) -> None:
        self.process = process
        self._fd = fd
        self.raw = ""
        self._seen = 0

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def expect(self, text: str) -> str:
        """Wait until this was shown, beyond what was expected before; all that was shown up to there."""
        deadline = time.monotonic() + PATIENCE_S
        while (at := self._shown().find(text, self._seen)) < 0:
            if time.monotonic() > deadline or not self._read():
                raise AssertionError(f"{text!r} was not shown:\n{self._shown()[self._seen :]}")
        before = self._shown()[self._seen : at + len(text)]
        self._seen = at + len(text)
        return before

    def end(self) -> int:
        """Wait for the program to end by itself; its exit status."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read() and time.monotonic() < deadline:
            pass
        return self.process.wait(PATIENCE_S)

    def shown(self) -> str:
        """Everything, without what moves the cursor or colours."""
        return self._shown()

    def _shown(self) -> str:
        return ESCAPES.sub("", self.raw).replace("\r\n", "\n")

    def _read(self) -> bool:
        """Take in what was written. False when the program is gone, and has been read to the end."""
        if not select.select([self._fd], [], [], 1.0)[0]:
            return self.process.poll() is None
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # Linux says so of a terminal that nobody has open any more
            return False
        self.raw += data.decode()
        return bool(data)


@contextmanager
def terminal(distill: Running, *arguments: str, **environment: str) -> Iterator[Terminal]:
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (40, 140))
    process = subprocess.Popen(
        [sys.executable, "-c", IN_CONTROL, "distill", "review", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=_environment(distill, **environment),
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        os.close(ours)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE_S)


def script(distill: Running, *arguments: str) -> Result:
    """The same command where there is no terminal."""
    return CliRunner().invoke(
        app, ["distill", "review", *arguments], env={"STILLHOUSE_GATEWAY_URL": distill.url}
    )


def _environment(distill: Running, **more: str) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TERM": "xterm",
        "STILLHOUSE_GATEWAY_URL": distill.url,
        **more,
    }


def job(distill: Running, **request: Any) -> Json:
    job_id = httpx.post(f"{distill.url}/v1/distill/jobs", json=request, trust_env=False).json()["job_id"]
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = httpx.get(f"{distill.url}/v1/distill/jobs/{job_id}", trust_env=False).json()
        if found["state"] in ("done", "failed"):
            assert found["state"] == "done", found
            return dict(found)
        time.sleep(0.02)
    raise AssertionError(f"{request} did not end")


def score(distill: Running) -> None:
    job(distill, stage="materialize")
    job(distill, stage="score")


def send(distill: Running, *records: Json) -> None:
    kept = httpx.post(f"{distill.url}/v1/runs", content=ndjson(records), trust_env=False)
    assert kept.json()["accepted"] == len(records), kept.text


def doubtful(name: str, answer: str, **fields: Any) -> Json:
    """A run whose verdict asks for a person."""
    judged = verdict("needs_human_review")
    judged["findings"] = [
        {
            "code": "content.discriminatory",
            "severity": "review",
            "path": "/body",
            "span": [4, 9],
            "message": "may be",
        }
    ]
    return run(name, answer=answer, verdict=judged, **fields)


def reviews(data: Path) -> list[Json]:
    found = [one for path in sorted((data / "log").glob("runs-*.jsonl")) for one in lines(path)]
    return [one for one in found if one["schema"] == "stillhouse.review"]


def test_a_sitting_from_the_queue_to_the_training_row(tmp_path: Path) -> None:
    data = tmp_path / "data"
    editor = tmp_path / "editor.py"
    editor.write_text(
        "import pathlib, sys\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "text = path.read_text()\n"
        "broken = text.replace('young', 'able').removesuffix('}\\n')\n"  # at first it is no JSON
        "path.write_text(text + '}\\n' if 'able' in text else broken)\n"
    )
    with running("distill", tmp_path, env=ANY_DISK) as distill:
        send(
            distill,
            run("good", verdict=verdict()),
            doubtful("one", '{"body": "Any young person", "to": []}', question="write to them"),
            doubtful("two", '{"body": "Any young person", "to": []}', question="write\x1b]0;pwned\x07 to us"),
            doubtful("three", '{"body": "Any young person", "to": []}', question="write to you"),
        )
        score(distill)
        with terminal(distill, "--by", "ann", EDITOR=f"{sys.executable} {editor}") as seat:
            shown = seat.expect("q quit")
            assert "1 of 3" in shown
            assert "review content.discriminatory at /body: may be" in shown
            seat.type("u")
            seat.expect("nothing to take back")
            seat.type("a")
            seat.expect("accept: Enter sends it")
            seat.type("q")
            seat.expect("accept is not sent yet")
            seat.type("u")
            seat.expect("accept taken back")
            seat.type("r")
            seat.expect("reject: Enter sends it")
            seat.type("n")
            seat.expect("note: ")
            seat.type("says who may be asked\n")
            seat.expect("noted")
            seat.type("\n")
            seat.expect("rejected, kept as review ")
            seat.expect("2 of 3")
            seat.expect("q quit")
            seat.type("c")
            seat.expect("this is not JSON")
            seat.type("c")
            seat.expect('+  "body": "Any able person"')
            seat.expect("correct: Enter sends it")
            seat.type("\n")
            seat.expect("corrected, kept as review ")
            seat.expect("q quit")
            seat.type("a\n")
            seat.expect("accepted, kept as review ")
            seat.expect("Nothing more waits.")
            seat.expect("1 rejected, 1 corrected, 1 accepted")
            seat.expect("no alpha, since no piece of evidence was decided by two reviewers")
            assert seat.end() == 0
        with terminal(distill, "--by", "ann", "--id", reviews(data)[2]["evidence_id"]) as seat_again:
            assert "ann accepted it on" in seat_again.expect("q quit")
            seat_again.type("q")
            assert seat_again.end() == 0
        assert "\x1b]0;" not in seat.raw  # a text of others does nothing to the terminal
        kept = reviews(data)
        assert [one["decision"] for one in kept] == ["reject", "correct", "accept"]
        assert (kept[0]["by"], kept[0]["note"]) == ("ann", "says who may be asked")
        assert all(one["review_id"] in seat.shown() for one in kept)
        score(distill)
        made = job(distill, stage="export", kind="sft", target="openai")
        folder = data / "datasets" / made["dataset_id"]
        rows = [row for split in SPLITS for row in lines(folder / f"{split}.jsonl")]
        answers = sorted(row["messages"][-1]["content"] for row in rows)
        assert answers == [
            "answer good",
            '{"body": "Any able person", "to": []}',
            '{"body": "Any young person", "to": []}',
        ]


def test_a_decision_outlives_a_service_that_is_gone(tmp_path: Path) -> None:
    port = free_port()
    with running("distill", tmp_path, env=ANY_DISK, port=port) as distill:
        send(distill, doubtful("one", "an answer"), doubtful("two", "an answer"))
        score(distill)
        with terminal(distill, "--by", "ann", "--limit", "2") as seat:
            seat.expect("q quit")
            distill.stop()
            seat.type("a\n")
            seat.expect("not kept: no gateway answers")
            with running("distill", tmp_path, env=ANY_DISK, port=port):
                seat.type("\n")
                seat.expect("accepted, kept as review ")
                seat.expect("2 of 2")
                seat.type("r")
                seat.expect("reject: Enter sends it")
                seat.type("\x03")
                seat.expect("not sent; this sends it:")
                seat.expect("--decide reject --by ann")
                assert seat.end() == 1
                (kept,) = reviews(tmp_path / "data")
                assert kept["decision"] == "accept"


def test_scripts_decide_without_a_terminal(tmp_path: Path) -> None:
    with running("distill", tmp_path, env=ANY_DISK) as distill:
        send(distill, doubtful("one", '{"body": "Any young person"}'), doubtful("two", "an answer"))
        score(distill)
        refused = script(distill)
        assert refused.exit_code == 2
        assert "needs a terminal" in refused.stderr
        page = orjson.loads(script(distill, "--json", "--limit", "5").stdout)
        items = {one["evidence"]["output"]["content"]: one["evidence"] for one in page["evidence"]}
        json_id, text_id = (
            items['{"body": "Any young person"}']["evidence_id"],
            items["an answer"]["evidence_id"],
        )
        bad = tmp_path / "bad.json"
        bad.write_text('{"body": ')
        arguments = ("--decide", "correct", "--by", "ann", "--id", json_id, "--correction")
        unread = script(distill, *arguments, str(bad))
        assert (unread.exit_code, reviews(tmp_path / "data")) == (2, [])
        assert "this is not JSON" in unread.stderr
        bad.write_text('{"body": "Anybody"}')
        record = orjson.loads(script(distill, *arguments, str(bad), "--json").stdout)
        assert record["correction"]["content"] == '{"body": "Anybody"}'
        for by, decision in (("ann", "accept"), ("bob", "reject")):
            done = script(distill, "--decide", decision, "--by", by, "--id", text_id)
            assert done.stdout.startswith(f"{decision}ed, kept as review "), done.stderr
        agreement = script(distill, "--agreement")
        assert "Krippendorff's alpha 0.000" in agreement.stdout
        assert "reviewers 2, decided 2, by several 1, pairs that agree 0%" in agreement.stdout
