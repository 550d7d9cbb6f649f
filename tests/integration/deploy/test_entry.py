"""The image's entry point: what it becomes, and what it takes for healthy."""

import http.server
import ssl
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.testing import free_port
from tests.contract.test_deploy_compose import entry

pytestmark = pytest.mark.enable_socket

ENTRY = entry()


class Healthz(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Failing(Healthz):
    status = 503


@contextmanager
def serving(handler: type[Healthz], context: ssl.SSLContext | None = None) -> Iterator[dict[str, str]]:
    """A server, and the environment of a gateway that were it."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield {"GATEWAY_PORT": str(server.server_address[1])}
        finally:
            server.shutdown()
            thread.join()


def test_a_daemon_that_answers_is_healthy() -> None:
    with serving(Healthz) as environment:
        assert ENTRY.serves("gateway", environment)


def test_one_that_fails_is_not() -> None:
    with serving(Failing) as environment:
        assert not ENTRY.serves("gateway", environment)


def test_one_that_is_not_there_is_not() -> None:
    assert not ENTRY.serves("gateway", {"GATEWAY_PORT": str(free_port())})


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate of another name, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stillhouse.example")])
    today = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    file = tmp_path_factory.mktemp("tls") / "gateway.pem"
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(key.private_bytes(pem, *plain) + certificate.public_bytes(pem))
    return file


def test_tls_is_spoken_where_the_daemon_does(certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(Healthz, context) as environment:
        assert ENTRY.serves("gateway", {**environment, "GATEWAY_TLS_CERTIFICATE": str(certificate)})


@pytest.mark.parametrize(("given", "host"), [({}, "0.0.0.0"), ({"EMBEDD_HOST": "10.1.2.3"}, "10.1.2.3")])
def test_it_becomes_the_daemon_on_all_addresses_unless_told_otherwise(
    given: dict[str, str], host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[tuple[Sequence[str], Mapping[str, str]]] = []
    monkeypatch.setattr("os.execve", lambda _, command, variables: became.append((command, variables)))
    ENTRY.main(["audit", "--json"], {"MODULE": "embedd", **given})
    ((command, variables),) = became
    assert command == [sys.executable, "-P", "-m", "embedd", "audit", "--json"]
    assert variables["EMBEDD_HOST"] == host


@pytest.mark.parametrize(("handler", "status"), [(Healthz, 0), (Failing, 1)])
def test_the_health_check_tells_by_its_exit_status(handler: type[Healthz], status: int) -> None:
    with serving(handler) as environment, pytest.raises(SystemExit) as left:
        ENTRY.main(["health"], {"MODULE": "gateway", **environment})
    assert left.value.code == status
