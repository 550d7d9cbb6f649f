"""A provider behind TLS: asked where its certificate can be checked, never where it cannot."""

import contextlib
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.testing import free_port
from tests.processes import running

KEY = "sk-for-the-provider-alone"
ASKED = {"model": "secure/m", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(autouse=True)
def _sockets(socket_enabled: None) -> None:
    """These tests talk to real ports."""


def certificate(folder: Path) -> Path:
    """One that signs itself, for 127.0.0.1, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a provider")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "provider.pem"
    pem.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pem


class Provider(BaseHTTPRequestHandler):
    """One of OpenAI's kind. What it was asked is kept by its server."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep the test's output clean."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append(self.headers["authorization"])  # type: ignore[attr-defined] # ours
        answer = {
            "id": "c1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
        body = orjson.dumps(answer)
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def provider(pem: Path) -> Iterator[tuple[str, list[str]]]:
    """Its URL, and the keys that it was sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = ThreadingHTTPServer(("127.0.0.1", free_port()), Provider)
    server.daemon_threads = True
    server.seen = seen = []  # type: ignore[attr-defined,var-annotated] # its handlers know it
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # a handshake that fails is wanted
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("trusted", [True, False])
def test_a_provider_is_asked_over_tls_if_its_certificate_holds(tmp_path: Path, *, trusted: bool) -> None:
    pem = certificate(tmp_path)
    with provider(pem) as (url, seen):
        config = tmp_path / "chatd.toml"
        config.write_text(
            f'[providers.secure]\ntype = "openai"\nbase_url = "{url}"\nkey_env = "SECURE_KEY"\n'
            "retries = { attempts_max = 1 }\n"
        )
        env = {
            "CHATD_CONFIG": str(config),
            "CHATD_DISTILL_URL": f"http://127.0.0.1:{free_port()}",  # down: the records stay in the spool
            "SECURE_KEY": KEY,
            **({"SSL_CERT_FILE": str(pem)} if trusted else {}),
        }
        with running("chatd", tmp_path, env=env) as chatd:
            answer = httpx.post(f"{chatd.url}/v1/chat/completions", json=ASKED, timeout=30.0, trust_env=False)
            said = chatd.text()
    if trusted:
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"] == "hi"
        assert seen == [f"Bearer {KEY}"]
    else:
        assert answer.status_code == 503, answer.text
        assert answer.json()["error"]["code"] == "secure_down"
        assert seen == []
    assert KEY not in said
