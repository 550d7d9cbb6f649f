"""The command line as a user has it: a runner, and a gateway that answers what the test says."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from stillhouse.cli import app

Answer = tuple[int, Any]


@dataclass
class StubGateway:
    """Answers each route with its list of answers in turn, the last one again and again."""

    url: str = ""
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        self.requests.append((method, path, headers, json.loads(body) if body else None))
        route = f"{method} {path}"
        if route not in self.answers:
            message = f"there is no route {route}"
            error = {"message": message, "type": "not_found_error", "code": "unknown_route"}
            return 404, {"error": error}
        queued = self.answers[route]
        return queued.pop(0) if len(queued) > 1 else queued[0]


@pytest.fixture
def gateway(
    socket_enabled: None,  # noqa: ARG001 - asked for so that there are sockets
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[StubGateway]:
    stub = StubGateway()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer = stub.answer(self.command, self.path, headers, body)
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _serve  # noqa: N815 - the library's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        stub.url = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("STILLHOUSE_GATEWAY_URL", stub.url)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield stub
        server.shutdown()
        thread.join()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 200)  # it reads TERMINAL_WIDTH when it is imported

    def invoke(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=stdin, prog_name="stillhouse")

    return invoke
