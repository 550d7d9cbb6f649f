"""The short way and the long one give the same answer to the same bytes, whatever the bytes are."""

import asyncio
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack
from typing import Any, cast

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from services.protocol import DirectExchange
from services.testing import client_for
from tests.unit.validators.conftest import ORDER, PROPOSAL, WORKERS
from validators.app import SHIPPED_POLICY, create_app
from validators.backends import FakeRoster, FixedRoster
from validators.engine import Policy
from validators.routes import ValidateDoor, usual
from validators.settings import Settings

ELAPSED = re.compile(rb'"elapsed_ms":[0-9.e-]+')
FILL = {"kind": "fill", "artifact": PROPOSAL, "context": {"order": ORDER}}
SMS = {"kind": "sms", "artifact": {"to": "+16145550100", "body": "Hi Bob, see you"}, "run_id": "r-1"}
HEADERS = [(b"content-type", b"application/json")]


class Exchange:
    """A request as the protocol hands it to the door, and what was answered."""

    def __init__(self, body: bytes, state: dict[str, Any], headers: list[tuple[bytes, bytes]]) -> None:
        self.body = body
        self.scope = {"headers": headers, "method": "POST", "path": "/v1/validate", "state": state}
        self.answer: tuple[int, dict[bytes, bytes], bytes] | None = None

    def respond(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        self.answer = (status, dict(headers), body)


class Ways:
    """One daemon, asked on either way."""

    def __init__(self, runner: asyncio.Runner, roster: FakeRoster) -> None:
        self._runner = runner
        self._stack = AsyncExitStack()
        self._app = create_app(Settings(), source=FixedRoster(roster))
        self._state: dict[str, Any] = {}
        runner.run(self._open())

    async def _open(self) -> None:
        self._client = await self._stack.enter_async_context(client_for(self._app))
        transport = self._client._transport
        assert isinstance(transport, httpx.ASGITransport)
        self._state = cast("Any", transport.app)._state

    def close(self) -> None:
        self._runner.run(self._stack.aclose())

    def short(self, body: bytes, headers: list[tuple[bytes, bytes]] = HEADERS) -> Exchange:
        door = self._app.direct
        assert isinstance(door, ValidateDoor)
        exchange = Exchange(body, dict(self._state), headers)
        taken = door.take(cast("DirectExchange", exchange))
        assert taken == (exchange.answer is not None)
        return exchange

    def long(self, body: bytes, path: str = "/v1/validate") -> httpx.Response:
        return self._runner.run(
            self._client.post(path, content=body, headers={"content-type": "application/json"})
        )


@pytest.fixture(scope="module")
def ways() -> Iterator[Ways]:
    with asyncio.Runner() as runner:
        pair = Ways(runner, FakeRoster(WORKERS, Policy(SHIPPED_POLICY.read_bytes())))
        yield pair
        pair.close()


def timeless(body: bytes) -> bytes:
    return ELAPSED.sub(b'"elapsed_ms":0', body)


def check_same(ways: Ways, body: bytes) -> bool:
    """Whether the short way was taken; if so, the long one says the same, and so does a batch."""
    exchange = ways.short(body)
    if exchange.answer is None:
        return False
    status, headers, answer = exchange.answer
    long = ways.long(body)
    assert (status, timeless(answer)) == (long.status_code, timeless(long.content))
    assert headers[b"content-type"].decode() == long.headers["content-type"]
    assert b"x-request-id" in headers
    line = b" ".join(body.split(b"\n"))
    batch = ways.long(line, "/v1/validate/batch")
    assert timeless(batch.content) == timeless(answer) + b"\n"
    return True


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False)
    | st.text(max_size=12)
    | st.sampled_from(["W-001", "W-002", "W-999", "O-1", "fill", "sms", "2026-11-02T22:00:00-05:00"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    [
        "kind",
        "artifact",
        "context",
        "run_id",
        "order",
        "fills",
        "worker_id",
        "name",
        "count",
        "as_of",
        "age_min",
    ]
)


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """A valid request with up to three things changed, anywhere in it."""
    request: Any = json.loads(draw(st.sampled_from([json.dumps(FILL), json.dumps(SMS)])))
    for _ in range(draw(st.integers(0, 3))):
        place: Any = request
        while isinstance(place, dict | list) and place and draw(st.booleans()):
            key: Any = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if not isinstance(place[key], dict | list) or not place[key]:
                break
            place = place[key]
        if isinstance(place, dict):
            key = draw(st.sampled_from(sorted(place))) if bool(place) and draw(st.booleans()) else draw(names)
            if draw(st.booleans()):
                place[key] = draw(values)
            else:
                place.pop(key, None)
        elif isinstance(place, list):
            place.insert(0, draw(values))
    return json.dumps(request, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(body=changed())
@example(body=b'{"kind":"sms","artifact":{"to":"1","body":"1"},"artifact":{"to":"2","body":"2"}}')
@example(body=b'{"kind":"json_schema","artifact":1e999,"context":{"schema":{}}}')
@example(body=b'{"kind":"sms","artifact":{"to":12345678901234567890,"body":""}}')
@example(body=b'{"kind":"sms","artifact":"{\\"to\\":12345678901234567,\\"body\\":\\"a\\"}"}')
@example(
    body=b'{"kind":"sms","artifact":{"to":"+16145550100","body":"\\ud83d\\ude00 \xc3\xa9"},"context":{}}'
)
@example(body=b'{"kind":"sms","artifact":' + b"[" * 300 + b"]" * 300 + b"}")
def test_both_ways_say_the_same(ways: Ways, body: bytes) -> None:
    check_same(ways, body)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"run_id": None},
        {"run_id": "a.b-C_9"},
        {"artifact": json.dumps(PROPOSAL)},
        {"artifact": "{"},
        {"artifact": PROPOSAL | {"fills": [{"worker_id": "W-999", "name": "Bob"}]}},
        {"artifact": PROPOSAL | {"fills": "none", "extra": 1.5}},
    ],
)
def test_the_usual_takes_the_short_way(ways: Ways, change: dict[str, Any]) -> None:
    assert check_same(ways, json.dumps(FILL | change).encode())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"artifact":{}}',
        b'{"kind":"","artifact":{}}',
        b'{"kind":"sms"}',
        b'{"kind":"fax","artifact":{}}',
        b'{"kind":"sms","artifact":{},"more":1}',
        b'{"kind":"sms","artifact":{},"context":null}',
        b'{"kind":"sms","artifact":{},"run_id":"two words"}',
        b'{"kind":"sms","artifact":{},"run_id":"newline\\n"}',
        b'{"kind":"sms","artifact":{"n":9007199254740993}}',
        b'{"kind":"sms","artifact":{},"context":{"sender":"x"}}',
        b'{"kind":"json_schema","artifact":1,"context":{"schema":{}}}',
        b'{"kind":"sms","artifact":{"to":"1","body":"' + b"x" * 5000 + b'"}}',
    ],
)
def test_what_is_refused_or_takes_long_is_left_to_the_long_way(ways: Ways, body: bytes) -> None:
    assert ways.short(body).answer is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"kind":"sms","artifact":{"n":123456789012345678901234567890}}',
        b'{"kind":"sms","artifact":{"n":9007199254740993}}',
        b'{"kind":"sms","artifact":{},"more":1}',
        b'{"kind":"fax","artifact":{}}',
        b'{"kind":"sms","artifact":' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"kind":"fill","artifact":{},"context":{"order":{"count":"1"}}}',
    ],
)
def test_a_line_of_a_batch_is_refused_as_a_request_is(ways: Ways, body: bytes) -> None:
    single, line = ways.long(body), ways.long(body, "/v1/validate/batch")
    assert single.status_code == 400
    told = [json.loads(answer.content)["error"] | {"request_id": None} for answer in (single, line)]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    "headers",
    [[], [(b"content-type", b"text/plain")], [(b"content-type", b"application/jsonx")], HEADERS * 2],
)
def test_a_body_that_is_not_said_to_be_json_is_left_alone(
    ways: Ways, headers: list[tuple[bytes, bytes]]
) -> None:
    assert ways.short(json.dumps(FILL).encode(), headers).answer is None


def test_json_with_a_charset_is_json(ways: Ways) -> None:
    headers = [(b"content-type", b"application/json; charset=utf-8")]
    assert ways.short(json.dumps(SMS).encode(), headers).answer is not None


def test_numbers_near_the_bound_are_read_by_the_model() -> None:
    body = b'{"kind":"sms","artifact":%d}'
    assert usual(body % 999_999_999_999_999) is not None
    assert usual(body % 1_000_000_000_000_000) is None
