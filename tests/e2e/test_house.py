"""The house as its users meet it: the official clients, the command line, and daemons that die."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
import psutil
import pytest

from schemas.errors import ErrorEnvelope
from tests.e2e.conftest import House
from tests.generate import DAEMONS
from tests.processes import ROOT

EMBED, CHAT = "all-minilm", "smollm2:135m"
RECOVERY_S = float(os.environ.get("RECOVERY_S", "60"))  # `make chaos` asks for 5


def cli(house: House, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "STILLHOUSE_DATA": str(house.data),
        "STILLHOUSE_GATEWAY_URL": house.url("gateway"),
        "STILLHOUSE_API_KEY": house.key,
    }
    command = [sys.executable, "-m", "stillhouse", *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


# --- the official client ------------------------------------------------------------------------


@pytest.fixture
def sdk(house: House) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{house.url('gateway')}/v1", api_key=house.key, max_retries=0) as client:
        yield client


def test_the_openai_sdk_embeds(sdk: openai.OpenAI) -> None:
    answer = sdk.embeddings.create(model=EMBED, input=["a forklift operator", "a fork truck driver", "soup"])
    forklift, truck, soup = (item.embedding for item in answer.data)
    assert len(forklift) == 384

    def cosine(one: list[float], two: list[float]) -> float:
        return sum(a * b for a, b in zip(one, two, strict=True))

    assert cosine(forklift, truck) > cosine(forklift, soup) + 0.2
    assert answer.usage.prompt_tokens > 0


def test_the_openai_sdk_chats_and_streams(sdk: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Say hello."}]
    whole = sdk.chat.completions.create(model=CHAT, messages=messages, max_tokens=8, seed=1, temperature=0)
    assert whole.choices[0].message.content
    assert whole.usage is not None
    assert whole.usage.completion_tokens >= 1
    pieces = sdk.chat.completions.create(
        model=CHAT, messages=messages, max_tokens=8, seed=1, temperature=0, stream=True
    )
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text == whole.choices[0].message.content


def test_the_openai_sdk_gets_json_of_a_schema(sdk: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "seats": {"type": "integer"}},
        "required": ["city", "seats"],
        "additionalProperties": False,
    }
    answer = sdk.chat.completions.create(
        model=CHAT,
        messages=[{"role": "user", "content": "Three seats in Toledo, as JSON."}],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "order", "schema": schema, "strict": True},
        },
        max_tokens=60,
        temperature=0,
    )
    value = json.loads(answer.choices[0].message.content or "")
    assert isinstance(value["city"], str)
    assert isinstance(value["seats"], int)


def test_the_openai_sdk_reads_our_errors(sdk: openai.OpenAI, house: House) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        sdk.embeddings.create(model="no-such-model", input="x")
    assert missing.value.code == "model_not_found"
    assert missing.value.request_id is not None
    with (
        openai.OpenAI(base_url=f"{house.url('gateway')}/v1", api_key="sh-wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


def test_models_are_listed(sdk: openai.OpenAI) -> None:
    listed = {model.id for model in sdk.models.list()}
    assert {"ollama/smollm2:135m"} <= listed
    assert any("all-minilm" in name for name in listed)


# --- a run's way --------------------------------------------------------------------------------


def test_a_chat_becomes_a_run_that_can_be_read(house: House) -> None:
    with house.client() as client:
        body = {"model": CHAT, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
        answer = client.post("/v1/chat/completions", json=body, headers={"x-request-id": "e2e-run"})
        assert answer.headers["x-request-id"] == "e2e-run"
        run_id = answer.headers["x-run-id"]
        deadline = time.monotonic() + 20
        while (kept := client.get(f"/v1/runs/{run_id}")).status_code == 404:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    run = kept.json()["run"]
    assert run["principal"] == "e2e"
    assert run["model"]["provider"] == "ollama"
    assert run["output"]["content"] == answer.json()["choices"][0]["message"]["content"]


def test_the_command_line_finds_its_way(house: House) -> None:
    status = cli(house, "status", "--json")
    assert status.returncode == 0, status.stdout + status.stderr
    models = cli(house, "models", "--json")
    assert CHAT in models.stdout
    draft = house.data / "draft.json"
    draft.write_text(json.dumps({"order_id": "JO-1", "fills": [{"worker_id": "W-0"}]}))
    context = house.data / "context.json"
    order = json.loads((house.world / "orders.jsonl").read_text().splitlines()[0])
    context.write_text(json.dumps({"order": order}))
    verdict = cli(house, "validate", str(draft), "--kind", "fill", "--context", str(context), "--json")
    assert verdict.returncode == 1
    assert "fill.worker_unknown" in verdict.stdout


# --- daemons that die ---------------------------------------------------------------------------


@dataclass
class Traffic:
    """Requests to one route, over and over, and what came back: (time, status, envelope is right)."""

    daemons: tuple[str, ...]
    method: str
    path: str
    body: Any = None
    seen: list[tuple[float, int, bool]] = field(default_factory=list)

    def send(self, client: httpx.Client) -> None:
        response = client.request(self.method, self.path, json=self.body)
        right = True
        if not response.is_success:
            right = bool(ErrorEnvelope.model_validate_json(response.content).error.message)
        self.seen.append((time.monotonic(), response.status_code, right))


def traffic() -> list[Traffic]:
    """A route of each daemon, with the daemons that it needs."""
    return [
        Traffic(("embedd", "modeld"), "POST", "/v1/embeddings", {"model": EMBED, "input": "over and over"}),
        Traffic(("vectord",), "GET", "/v1/collections"),
        Traffic(("chatd", "modeld"), "GET", "/v1/models"),
        Traffic(("distill",), "GET", "/v1/distill/datasets"),
        Traffic(("validators",), "GET", "/v1/validators"),
    ]


@contextmanager
def load(house: House, routes: list[Traffic]) -> Iterator[None]:
    stop = threading.Event()

    def keep_asking(route: Traffic) -> None:
        with house.client() as client:
            while not stop.wait(0.02):
                route.send(client)

    threads = [threading.Thread(target=keep_asking, args=(route,)) for route in routes]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def pid_of(house: House, daemon: str) -> int | None:
    state = json.loads((house.data / "run" / "supervisor.json").read_text())
    pid: int | None = next(entry["pid"] for entry in state["processes"] if entry["name"] == daemon)
    return pid


def healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=1, trust_env=False).is_success
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("daemon", [name for name in DAEMONS if name != "gateway"])
def test_a_killed_daemon_takes_nobody_with_it_and_comes_back(house: House, daemon: str) -> None:
    routes = traffic()
    url, victim = house.url(daemon), pid_of(house, daemon)
    assert victim is not None
    with load(house, routes):
        time.sleep(0.5)
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        while healthy(url) and pid_of(house, daemon) == victim:
            time.sleep(0.01)
        while not healthy(url):
            assert time.monotonic() < killed + 60
            time.sleep(0.02)
        back = time.monotonic()
        time.sleep(2.0)
    assert back - killed <= RECOVERY_S
    for route in routes:
        assert route.seen
        assert all(right for _, _, right in route.seen)
        statuses = {status for _, status, _ in route.seen}
        if daemon not in route.daemons:
            assert statuses == {200}, route
        else:
            assert statuses <= {200, 503}, route  # who came meanwhile waited for it, or was told
            assert route.seen[-1][1] == 200, "it serves again"


def test_a_killed_gateway_comes_back(house: House) -> None:
    victim = pid_of(house, "gateway")
    assert victim is not None
    killed = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(victim)] if psutil.pid_exists(victim) else [], timeout=5)
    while not healthy(house.url("gateway")):
        assert time.monotonic() < killed + RECOVERY_S
        time.sleep(0.02)
    with house.client() as client:
        assert client.get("/v1/models").status_code == 200
