"""The short way and the ordinary one answer alike. A body without a declared length takes the latter."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from services.testing import free_port
from tests.integration.chatd.conftest import Distill, Ollama, OllamaHandler, serving
from tests.processes import Running, running

pytestmark = pytest.mark.enable_socket

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
HELLO = [{"role": "user", "content": "hello"}]
MADE_UP = re.compile(
    rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}|call_\w+|\"created(_at)?\":\d+"
)
"""What differs between any two answers."""

BODIES: list[tuple[str, Any]] = [
    (CHAT, {"model": "talk", "messages": HELLO}),
    (CHAT, {"model": "talk", "messages": HELLO, "stream": True}),
    (CHAT, {"model": "talk", "messages": HELLO, "stream": "true", "stream_options": {"include_usage": True}}),
    (CHAT, {"model": "tools", "messages": HELLO, "stream": True, "unheard_of": [1]}),
    (CHAT, {"model": "breaks", "messages": HELLO, "stream": True}),
    (CHAT, {"model": "long", "messages": HELLO}),
    (CHAT, {"model": "ollama/absent", "messages": HELLO}),
    (CHAT, {"model": "nobody/talk", "messages": HELLO, "stream": True}),
    (CHAT, {"model": "talk", "messages": []}),
    (CHAT, {"model": "talk", "messages": HELLO, "temperature": 9}),
    (CHAT, {"model": "talk", "messages": [{"role": "tool", "content": "3"}]}),
    (CHAT, {"model": "talk", "messages": HELLO, "n": 3}),
    (
        CHAT,
        b'{"model": "talk", "messages": [{"role": "user", "content": "hi"}], "seed": 12345678901234567890}',
    ),
    (CHAT, b'{"model": "talk", "messages": [{"role": "user", "content": "hello"}], "top_p": NaN}'),
    (CHAT, b"[1, 2"),
    (CHAT, b"[]"),
    (CHAT, b""),
    (RESPONSES, {"model": "talk", "input": "hello"}),
    (RESPONSES, {"model": "tools", "input": "hello", "stream": True}),
    (RESPONSES, {"model": "talk", "input": [{"type": "reasoning"}]}),
    (RESPONSES, {"model": "talk", "input": [{"type": "item_reference", "id": "x"}]}),
    (RESPONSES, {"model": "talk", "input": "hello", "previous_response_id": "resp_1"}),
    (MESSAGES, {"model": "talk", "messages": HELLO, "max_tokens": 9}),
    (MESSAGES, {"model": "tools", "messages": HELLO, "max_tokens": 9, "stream": True}),
    (MESSAGES, {"model": "talk", "messages": HELLO}),
    (MESSAGES, {"model": "talk", "messages": HELLO, "max_tokens": 9, "mcp_servers": []}),
    (
        MESSAGES,
        {"model": "talk", "max_tokens": 9, "messages": [{"role": "user", "content": [{"type": "document"}]}]},
    ),
]


@pytest.fixture(scope="module")
def chatd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("doors")
    distill = Distill(free_port())
    with serving(Ollama(), OllamaHandler, free_port()) as ollama_url, distill.serving() as distill_url:
        env = {"OLLAMA_HOST": ollama_url, "CHATD_DISTILL_URL": distill_url, "CHATD_ANSWER_BYTES_MAX": "8192"}
        with running("chatd", folder, env=env) as process:
            yield process


def told(chatd: Running, path: str, body: bytes, *, door: bool, **headers: str) -> tuple[Any, ...]:
    def pieces() -> Iterator[bytes]:
        yield body

    answer = httpx.post(
        f"{chatd.url}{path}",
        content=body if door else pieces(),
        headers={"content-type": "application/json", "x-request-id": "same", **headers},
        timeout=30,
        trust_env=False,
    )
    shown = {name: value for name, value in answer.headers.items() if name not in LEFT_OUT}
    for name in ("x-run-id", "x-episode-id"):
        if name in shown:
            shown[name] = "some"
    return answer.status_code, MADE_UP.sub(b"~", answer.content), shown


LEFT_OUT = ("date", "content-length", "transfer-encoding")


@pytest.mark.parametrize("number", range(len(BODIES)))
def test_both_ways_answer_alike(chatd: Running, number: int) -> None:
    path, said = BODIES[number]
    body = said if isinstance(said, bytes) else orjson.dumps(said)
    assert told(chatd, path, body, door=True) == told(chatd, path, body, door=False)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-episode-id": "e-1"},
        {"x-episode-id": "not one"},
        {"x-stillhouse-validate": "nonsense"},
        {"content-type": "text/plain"},
    ],
)
def test_both_ways_heed_the_same_headers(chatd: Running, headers: dict[str, str]) -> None:
    body = orjson.dumps({"model": "talk", "messages": HELLO})
    assert told(chatd, CHAT, body, door=True, **headers) == told(chatd, CHAT, body, door=False, **headers)


def test_what_was_answered_shortly_is_counted_too(chatd: Running) -> None:
    name = f'http_requests_total{{method="POST",route="{CHAT}",status="200"}}'

    def counted() -> float:
        text = httpx.get(f"{chatd.url}/metrics", trust_env=False).text
        return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(name)), 0.0)

    before = counted()
    told(chatd, CHAT, orjson.dumps({"model": "talk", "messages": HELLO}), door=True)
    assert counted() == before + 1
