"""Through a real process: either way of asking, and batches, which let others be served meanwhile."""

import json
import re
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from tests.processes import Running, running

pytestmark = pytest.mark.enable_socket

LINE = json.dumps({"kind": "sms", "artifact": {"to": "+16145550100", "body": "See you at six."}})
SCHEMA = json.dumps({"kind": "json_schema", "artifact": [1], "context": {"schema": {"type": "array"}}})
ODD = json.dumps({"kind": "sms", "artifact": {f"key_{number}": 1 for number in range(20)}})
LINES = 9999  # whose answers, of more than 2 kB each, fit into no buffers


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    env = {"VALIDATORS_BATCHES_MAX": "1"}
    with running("validators", tmp_path_factory.mktemp("batches"), env=env) as daemon:
        yield daemon


def sent(daemon: Running, body: bytes) -> socket.socket:
    """A batch that was sent, and whose answer nobody has read."""
    url = urlsplit(daemon.url)
    connection = socket.socket()
    connection.settimeout(30)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((url.hostname, url.port))
    connection.sendall(
        b"POST /v1/validate/batch HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    )
    return connection


def given(client: httpx.Client, kind: str) -> float:
    """Verdicts given so far."""
    metrics = client.get("/metrics").text
    return sum(
        float(count) for count in re.findall(rf'validators_verdicts_total{{kind="{kind}",.*}} (\S+)', metrics)
    )


def test_a_body_whose_length_is_not_told_gets_the_same_answer(daemon: Running) -> None:
    """It takes the long way; requests with a length take the short one, also several on one connection."""
    headers = {"content-type": "application/json"}
    with httpx.Client(base_url=daemon.url, trust_env=False, timeout=30.0, headers=headers) as client:
        short = client.post("/v1/validate", content=LINE)
        long = client.post("/v1/validate", content=iter([LINE[:9].encode(), LINE[9:].encode()]))
        again = client.post("/v1/validate", content=LINE)
        kept = [answer.json() | {"elapsed_ms": 0} for answer in (short, long, again)]
    assert kept[0] == kept[1] == kept[2]
    assert kept[0]["ok"]
    lines = [json.loads(line) for line in daemon.text().splitlines() if '"/v1/validate"' in line]
    assert all(line["status"] == 200 for line in lines)


def test_short_and_long_lines_keep_their_order(daemon: Running) -> None:
    lines = [LINE, SCHEMA, "{", LINE, SCHEMA, SCHEMA, LINE] * 20
    answer = httpx.post(
        f"{daemon.url}/v1/validate/batch", content="\n".join(lines), timeout=30, trust_env=False
    )
    answers = [json.loads(line) for line in answer.text.splitlines()]
    assert [each.get("kind") for each in answers] == [
        None if line == "{" else json.loads(line)["kind"] for line in lines
    ]


def test_who_does_not_read_or_leaves_stops_the_work(daemon: Running) -> None:
    body = "\n".join([ODD] * LINES).encode()
    with httpx.Client(base_url=daemon.url, trust_env=False, timeout=30.0) as client:
        before = given(client, "sms")
        with sent(daemon, body) as connection:
            assert connection.recv(12) == b"HTTP/1.1 200"
            refused = client.post("/v1/validate/batch", content=LINE)  # there is one place
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_batches")
            assert client.post("/v1/validate", json=json.loads(LINE)).json()["ok"]
        deadline = time.monotonic() + 30
        while client.post("/v1/validate/batch", content=LINE).status_code != 200:  # the place is free again
            assert time.monotonic() < deadline
            time.sleep(0.01)
        done = given(client, "sms")
        assert done - before < LINES
