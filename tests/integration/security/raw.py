"""Bytes into a socket and whatever comes back, and a daemon that notes what gets through to it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

PATIENCE_S = 30.0
LAST = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    with socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE_S) as connection:
        yield connection


def read_to_end(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    received = b""
    with suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            received += piece
    return received


def read_answer(connection: socket.socket) -> bytes:
    """One answer, its body included."""
    return read_answers(connection, 1)


def read_answers(connection: socket.socket, number: int) -> bytes:
    """So many answers in a row."""
    received = b""
    while not _holds(received, number):
        piece = connection.recv(65536)
        assert piece, received
        received += piece
    return received


def _holds(received: bytes, number: int) -> bool:
    for _ in range(number):
        if b"\r\n\r\n" not in received or len(received) < (end := _end_of(received)):
            return False
        received = received[end:]
    return True


def _end_of(answer: bytes) -> int:
    head, _, _ = answer.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
    return len(head) + 4 + length


def answers_to(url: str, data: bytes) -> bytes:
    """All that is answered to these bytes and, where the connection still stands, to a last request."""
    with connected(url) as connection:
        with suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(data + LAST)
        return read_to_end(connection)


def statuses(answer: bytes) -> list[int]:
    """The statuses of the answers in a row."""
    found: list[int] = []
    while answer.startswith(b"HTTP/1.1 "):
        found.append(int(answer[9:12]))
        answer = answer[_end_of(answer) :]
    return found


@dataclass
class Witness:
    """A daemon that answers everything with the same, and keeps what it was sent but for `/healthz`."""

    url: str = ""
    answer: tuple[int, dict[str, str], bytes] = (200, {"content-type": "application/json"}, b'{"ok":true}')
    seen: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        return [line for line, _, _ in self.seen]


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        return  # whoever asked has left, as these tests' clients do


@contextmanager
def witness() -> Iterator[Witness]:
    it = Witness()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if self.path != "/healthz":  # which the gateway asks for by itself
                headers = {name.lower(): value for name, value in self.headers.items()}
                it.seen.append((f"{self.command} {self.path}", headers, body))
            status, headers, content = it.answer
            self.send_response(status)
            framing = {} if "transfer-encoding" in headers else {"content-length": str(len(content))}
            for name, value in {**headers, **framing}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = handle_one  # noqa: N815 - the library looks for these

        def log_message(self, *_: Any) -> None:
            return

    server = _Quiet(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    it.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield it
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
