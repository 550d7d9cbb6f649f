"""What clients see of HTTP itself, on a real port: framing, methods, and headers said once."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest

from services.keys import KeyGrant, KeyStore
from tests.integration.security.raw import Witness, answers_to, connected, read_answer, read_to_end, witness
from tests.processes import Running, running

pytestmark = pytest.mark.enable_socket

CHAT: Final = b"POST /v1/chat/completions"
CHUNKS: Final = b"2\r\n{}\r\n0\r\n\r\n"
SECURITY: Final = {"x-content-type-options": "nosniff", "x-frame-options": "DENY"}


class House(NamedTuple):
    gateway: Running
    daemon: Witness
    key: bytes

    def asked(self, line: bytes, body: bytes = b"", *, version: bytes = b"1.1", close: bool = False) -> bytes:
        """A request, as bytes."""
        head = [line + b" HTTP/" + version, b"host: x", b"authorization: Bearer " + self.key]
        if close:
            head.append(b"connection: close")
        return b"\r\n".join([*head, b"content-length: %d" % len(body), b"", body])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("wire")
    key, _ = KeyStore(folder / "data").create(KeyGrant(name="wire"))
    with witness() as daemon, running("gateway", folder, env={"GATEWAY_CHATD_URLS": daemon.url}) as gateway:
        yield House(gateway, daemon, key.encode())


def headers_of(answer: bytes) -> list[tuple[str, str]]:
    head = answer.partition(b"\r\n\r\n")[0].decode("latin-1")
    return [
        (name.lower(), value) for name, _, value in (line.partition(": ") for line in head.split("\r\n")[1:])
    ]


@pytest.mark.parametrize("path", [b"/healthz", b"/metrics", b"/openapi.json", b"/v1/models"])
def test_head_is_answered_without_a_body_and_the_connection_goes_on(house: House, path: bytes) -> None:
    answer = answers_to(house.gateway.url, house.asked(b"HEAD " + path))
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert int(dict(headers_of(answer))["content-length"]) > 0
    assert rest.startswith(b"HTTP/1.1 200 "), "the next answer, as there was no body"


def test_head_with_a_key_that_is_none_leaves_the_connection_whole(house: House) -> None:
    asked = b"HEAD /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sh-none\r\n\r\n"
    head, _, rest = answers_to(house.gateway.url, asked).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 ")
    assert rest.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("line", "allow"),
    [
        (b"OPTIONS /v1/models", "GET, HEAD"),
        (b"GET /v1/chat/completions", "POST"),
        (b"PATCH /v1/collections/a", "DELETE, GET, HEAD, PUT"),
        (b"POST /v1/roles", "GET, HEAD, PUT"),
        (b"DELETE /healthz", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(house: House, line: bytes, allow: str) -> None:
    answer = answers_to(house.gateway.url, house.asked(line))
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert dict(headers_of(answer))["allow"] == allow


@pytest.mark.parametrize("line", [b"GET /v1/models", CHAT])
def test_a_daemon_s_own_security_headers_are_not_said_twice(house: House, line: bytes) -> None:
    house.daemon.answer = 200, {"content-type": "application/json", **SECURITY}, b"{}"
    with connected(house.gateway.url) as connection:
        connection.sendall(house.asked(line))
        names = [name for name, _ in headers_of(read_answer(connection))]
    assert len(names) == len(set(names))
    assert set(SECURITY) <= set(names)


@pytest.mark.parametrize(("version", "chunked"), [(b"1.0", False), (b"1.1", True)])
def test_only_who_knows_chunks_gets_them(house: House, version: bytes, *, chunked: bool) -> None:
    house.daemon.answer = 200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"}, CHUNKS
    asked = house.asked(CHAT, b"{}", version=version, close=True)
    with connected(house.gateway.url) as connection:
        connection.sendall(asked)
        answer = read_to_end(connection)
    assert dict(headers_of(answer)).get("transfer-encoding") == ("chunked" if chunked else None)
    assert answer.partition(b"\r\n\r\n")[2] == (CHUNKS if chunked else b"{}")


@pytest.mark.parametrize("key", [True, False])
@pytest.mark.parametrize("body", [b"{}", b"", b"{"])
def test_answers_of_the_gateway_are_named_as_anthropic_s_clients_look_for_it(
    house: House, body: bytes, *, key: bool
) -> None:
    house.daemon.answer = 503, {"x-stillhouse-draining": "1"}, b""
    asked = house.asked(b"POST /v1/messages", body, close=True)
    with connected(house.gateway.url) as connection:
        connection.sendall(asked if key else asked.replace(house.key, b"sh-none"))
        answer = read_to_end(connection)
    said = headers_of(answer)
    assert [value for name, value in said if name == "request-id"] == [dict(said)["x-request-id"]]
    assert answer[9:12] == (b"503" if key else b"401")
