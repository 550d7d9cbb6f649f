"""An Ollama and a distill on real ports, and a chatd process between them."""

import contextlib
import select
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest

from services.testing import free_port
from tests.processes import Running, running

MODELS = ("talk", "json", "tools", "slow", "silent", "breaks", "long")
USAGE = {"prompt_eval_count": 5, "eval_count": 3}


@pytest.fixture(autouse=True)
def _sockets(socket_enabled: None) -> None:
    """These tests talk to real ports."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, stub: Any, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self.stub = stub

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what some tests are about."""


@contextlib.contextmanager
def serving(stub: Any, handler: type[BaseHTTPRequestHandler], port: int) -> Iterator[str]:
    server = Server(port, stub, handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Keep the test's output clean."""

    def read(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length", "0")))

    def answer(self, status: int, body: Any) -> None:
        content = orjson.dumps(body)
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@dataclass
class Ollama:
    """Models named after what they do. `gone` is set when a caller left a generation."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)
    busy: threading.Event = field(default_factory=threading.Event)


class OllamaHandler(Handler):
    def do_GET(self) -> None:
        tags = [{"name": name, "digest": f"digest-{name}"} for name in MODELS]
        self.answer(200, {"models": tags} if self.path == "/api/tags" else {"version": "0"})

    def do_POST(self) -> None:
        asked = orjson.loads(self.read())
        self.stub.asked.append(asked)
        model = asked["model"]
        if model not in MODELS:
            self.answer(404, {"error": f"model '{model}' not found"})
        elif model == "silent":
            self.wait_for_hang_up()
        elif asked["stream"]:
            self.stream(model)
        else:
            self.answer(200, {**self.whole(model), "done": True, "done_reason": "stop", **USAGE})

    @property
    def stub(self) -> Ollama:
        stub: Ollama = self.server.stub
        return stub

    def whole(self, model: str) -> dict[str, Any]:
        if model == "tools":
            call = {"function": {"name": "add", "arguments": {"a": 1}}}
            return {"message": {"role": "assistant", "content": "", "tool_calls": [call, call]}}
        if model == "long":
            return {"message": {"role": "assistant", "content": "far too long " * 1000}}
        content = '{"a": 1}' if model == "json" else "héllo wide world"
        return {"message": {"role": "assistant", "content": content}}

    def stream(self, model: str) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/x-ndjson")
        self.end_headers()
        if model == "slow":
            self.drip()
            return
        message = self.whole(model)["message"]
        if model == "tools":
            self.line({"message": message, "done": False})
        else:
            for word in message["content"].split(" "):
                self.line({"message": {"role": "assistant", "content": f"{word} "}, "done": False})
        if model == "breaks":
            self.line({"error": "the runner died"})
            return
        end = {"role": "assistant", "content": ""}
        self.line({"message": end, "done": True, "done_reason": "stop", **USAGE})

    def drip(self) -> None:
        try:
            for _ in range(1000):
                self.line({"message": {"role": "assistant", "content": "drip "}, "done": False})
                time.sleep(0.02)
        except OSError:
            self.stub.gone.set()

    def wait_for_hang_up(self) -> None:
        self.stub.busy.set()
        readable, _, _ = select.select([self.connection], [], [], 30)
        if readable and not self.connection.recv(1):
            self.stub.gone.set()

    def line(self, value: dict[str, Any]) -> None:
        self.wfile.write(orjson.dumps(value) + b"\n")
        self.wfile.flush()


@dataclass
class Distill:
    port: int
    records: list[dict[str, Any]] = field(default_factory=list)

    def serving(self) -> contextlib.AbstractContextManager[str]:
        return serving(self, DistillHandler, self.port)

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        deadline = time.monotonic() + 20
        while len(self.records) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(self.records) == count
        return self.records


class DistillHandler(Handler):
    def do_GET(self) -> None:
        self.answer(200, {"status": "ok"})

    def do_POST(self) -> None:
        stub: Distill = self.server.stub
        known = {record["run_id"] for record in stub.records}
        records = [orjson.loads(line) for line in self.read().splitlines()]
        stub.records += [record for record in records if record["run_id"] not in known]
        self.answer(200, {"accepted": len(records), "rejected": [], "durability": "fsync"})


@pytest.fixture
def ollama() -> Iterator[Ollama]:
    stub = Ollama()
    with serving(stub, OllamaHandler, free_port()) as url:
        stub.url = url
        yield stub


@pytest.fixture
def distill() -> Distill:
    return Distill(free_port())


@dataclass
class Setting:
    """How to start chatd here, as often as a test likes; its data stays."""

    folder: Path
    env: dict[str, str]

    def chatd(self, **env: str) -> contextlib.AbstractContextManager[Running]:
        return running("chatd", self.folder, env={**self.env, **env})


@pytest.fixture
def setting(tmp_path: Path, ollama: Ollama, distill: Distill) -> Setting:
    env = {
        "OLLAMA_HOST": ollama.url,
        "CHATD_DISTILL_URL": f"http://127.0.0.1:{distill.port}",
        "CHATD_SPOOL_LINGER_S": "0",
        "CHATD_SPOOL_RETRY_MAX_S": "0.2",
    }
    return Setting(tmp_path, env)
