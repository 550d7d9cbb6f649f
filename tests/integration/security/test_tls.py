"""HTTPS by settings: every way of a request works over it, and nothing is served in the clear beside it."""

import ipaddress
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.testing import free_port
from tests.integration.security.raw import connected, read_to_end, witness
from tests.processes import Running, started

pytestmark = pytest.mark.enable_socket


class Files(NamedTuple):
    certificate: Path
    key: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A certificate for this machine that vouches for itself."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    certificate = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    files = Files(folder / "certificate.pem", folder / "key.pem")
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    return files


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, files: Files) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("gateway")
    with witness() as daemon:
        env = {
            "GATEWAY_CHATD_URLS": daemon.url,
            "GATEWAY_TLS_CERTIFICATE": str(files.certificate),
            "GATEWAY_TLS_KEY": str(files.key),
        }
        port = free_port()
        with started("gateway", folder, port=port, env=env) as child:
            it = Running(child.process, f"https://127.0.0.1:{port}", child.log)
            wait_for(it, files)
            yield it


def client_of(gateway: Running, files: Files) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(files.certificate))
    return httpx.Client(base_url=gateway.url, verify=context, timeout=30, trust_env=False)


def wait_for(gateway: Running, files: Files) -> None:
    with client_of(gateway, files) as client:
        for _ in range(600):
            assert gateway.process.poll() is None, gateway.text()
            with suppress(httpx.ConnectError):
                assert client.get("/healthz").status_code == 200
                return
            time.sleep(0.05)
    raise AssertionError(gateway.text())


def test_every_way_works_over_it(gateway: Running, files: Files) -> None:
    with client_of(gateway, files) as client:
        for _ in range(3):
            assert client.post("/v1/chat/completions", content=b"{}").json() == {"ok": True}  # the short way
            assert client.get("/v1/models").json() == {"ok": True}  # the long one
        large = client.post("/v1/chat/completions", content=b"x" * 3_000_000)
        assert large.status_code == 200
        assert large.headers["strict-transport-security"].startswith("max-age=")


def test_nothing_is_served_in_the_clear(gateway: Running) -> None:
    with connected(gateway.url) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"HTTP/1.1" not in read_to_end(connection)


def test_old_versions_of_it_are_refused(gateway: Running) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)), connected(gateway.url) as connection:
        context.wrap_socket(connection)


@pytest.mark.parametrize("cipher", ["ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA384"])
def test_ciphers_that_are_known_to_be_weak_are_refused(gateway: Running, cipher: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{cipher}:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)), connected(gateway.url) as connection:
        context.wrap_socket(connection)


def test_an_idle_client_does_not_hold_up_the_end(tmp_path: Path, files: Files) -> None:
    port = free_port()
    env = {"GATEWAY_TLS_CERTIFICATE": str(files.certificate), "GATEWAY_TLS_KEY": str(files.key)}
    env["GATEWAY_DRAIN_TIMEOUT_S"] = "60"
    with started("gateway", tmp_path, port=port, env=env) as child:
        gateway = Running(child.process, f"https://127.0.0.1:{port}", child.log)
        wait_for(gateway, files)
        context = ssl.create_default_context(cafile=str(files.certificate))
        with (
            connected(gateway.url) as connection,
            context.wrap_socket(connection, server_hostname="127.0.0.1") as secure,
        ):
            secure.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert secure.recv(65536).startswith(b"HTTP/1.1 200")
            assert child.stop() == 0  # within its 15 s, though nobody closed the connection


def test_a_certificate_without_its_key_is_a_wrong_setting(tmp_path: Path, files: Files) -> None:
    with started("gateway", tmp_path, env={"GATEWAY_TLS_CERTIFICATE": str(files.certificate)}) as child:
        assert child.process.wait(30) == 2
        assert "go together" in child.text()
    with started("gateway", tmp_path, env={"GATEWAY_TLS_KEY": str(tmp_path / "none.pem")}) as child:
        assert child.process.wait(30) == 2
        assert "GATEWAY_TLS_KEY" in child.text()
