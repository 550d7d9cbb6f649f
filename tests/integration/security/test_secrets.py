"""What callers say and present is in no log, no metric and no error; and no caller writes a line of a log."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from services.keys import KeyGrant, KeyStore
from tests.bench.ollama_stub import MODEL
from tests.integration.security.raw import answers_to, witness
from tests.processes import Running, running

pytestmark = pytest.mark.enable_socket

BODY = "canary-in-a-body"
KEY = "sh-canary-of-a-key-0123456789"
PATH = "canary-in-a-path"
ID = "canary in an id"
PROVIDER_KEY = "sk-canary-of-a-provider"
INTERNAL = "canary-of-our-own-daemons"


class House(NamedTuple):
    daemons: dict[str, Running]
    key: str
    data: Path

    @property
    def gateway(self) -> str:
        return self.daemons["gateway"].url


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("secrets")
    key, _ = KeyStore(folder / "data").create(KeyGrant(name="tests", scopes=("admin",)))
    with ExitStack() as stack:
        stub = stack.enter_context(running("tests.bench.ollama_stub", folder))
        env = {
            "OLLAMA_HOST": stub.url,
            "STILLHOUSE_INTERNAL_TOKEN": INTERNAL,
            "CHATD_OPENAI_API_KEY": PROVIDER_KEY,
            "CHATD_OPENAI_URL": "http://127.0.0.1:9",
        }
        daemons: dict[str, Running] = {}
        for name in ("embedd", "validators", "distill", "vectord", "chatd", "gateway"):
            daemons[name] = stack.enter_context(running(name, folder, env=env))
            env |= {f"{asker}_{name.upper()}_URL": daemons[name].url for asker in ("VECTORD", "CHATD")}
            env[f"GATEWAY_{name.upper()}_URLS"] = daemons[name].url
        yield House(daemons, key, folder / "data")


def traffic(house: House) -> list[httpx.Response]:
    """Requests of every kind: served, refused and broken, each with something that nobody else should see."""
    chat = {"model": MODEL, "messages": [{"role": "user", "content": BODY}]}
    fill = {"kind": "email", "artifact": {"to": [f"{BODY}@example.com"], "subject": BODY, "body": BODY}}
    requests: list[tuple[str, str, object]] = [
        ("POST", "/v1/embeddings", {"model": MODEL, "input": BODY}),
        ("POST", "/v1/embeddings", {"model": BODY, "input": BODY}),
        ("POST", "/v1/embeddings", {"model": MODEL, "input": [BODY] * 200}),
        ("POST", "/v1/chat/completions", chat),
        ("POST", "/v1/chat/completions", {**chat, "model": f"openai/{BODY}"}),
        ("POST", "/v1/chat/completions", {"messages": BODY}),
        ("POST", "/v1/iterate", {**chat, "validate": {"kind": "email", "context": {}}}),
        ("POST", "/v1/validate", fill),
        ("PUT", "/v1/collections/notes", {"model": MODEL}),
        ("PUT", "/v1/collections/notes/points", {"points": [{"id": "1", "text": BODY}]}),
        ("PUT", "/v1/collections/notes/points", {"points": [{"id": "1", "payload": BODY}]}),
        ("POST", "/v1/collections/notes/search", {"text": BODY}),
        ("POST", "/v1/collections/notes/search", {"text": BODY, "filter": {BODY: BODY}}),
        ("POST", "/v1/runs", {"run_id": BODY}),
        ("POST", "/v1/feedback", {"run_id": "r", "kind": "comment", "value": BODY, "by": BODY}),
        ("GET", f"/v1/{PATH}", None),
        ("GET", f"/v1/collections/{PATH}", None),
        ("GET", f"/v1/models/{PATH}", None),
        ("BREW", "/v1/models", None),
    ]
    answers: list[httpx.Response] = []
    with httpx.Client(base_url=house.gateway, timeout=60, trust_env=False) as client:
        for authorization in (f"Bearer {house.key}", f"Bearer {KEY}"):
            for method, path, body in requests:
                headers = {"authorization": authorization, "x-request-id": ID, "x-canary": BODY}
                answers.append(client.request(method, path, json=body, headers=headers))
        broken = b'{"messages":"' + BODY.encode()
        answers.append(client.post("/v1/chat/completions", content=broken, headers={"x-api-key": house.key}))
    return answers


def test_what_is_said_stays_between_those_who_say_it(house: House) -> None:
    answers = traffic(house)
    assert {200, 400, 401, 404} <= {answer.status_code for answer in answers}
    for answer in answers:
        told = f"{answer.headers}{answer.text}"
        assert not [secret for secret in (KEY, house.key, PROVIDER_KEY, INTERNAL, ID) if secret in told]
    for name, daemon in house.daemons.items():
        with httpx.Client(trust_env=False, timeout=30) as client:
            shown = client.get(f"{daemon.url}/metrics").text + client.get(f"{daemon.url}/readyz").text
        for secret in (KEY, house.key, PROVIDER_KEY, INTERNAL, BODY, PATH, ID):
            assert secret not in shown, f"{secret} in the metrics of {name}"
            assert secret not in daemon.text(), f"{secret} in the log of {name}"


def test_what_a_model_server_says_of_a_request_is_told_its_caller_alone(tmp_path: Path) -> None:
    said = {"error": {"message": f"cannot serve: {BODY}"}, "models": [{"name": MODEL, "digest": "0" * 64}]}
    with witness() as server, ExitStack() as stack:
        env = {
            "OLLAMA_HOST": server.url,
            "CHATD_OPENAI_API_KEY": PROVIDER_KEY,
            "CHATD_OPENAI_URL": server.url,
        }
        daemons: dict[str, Running] = {}
        for name in ("embedd", "vectord", "chatd", "gateway"):
            daemons[name] = stack.enter_context(running(name, tmp_path, env=env))
            env[f"VECTORD_{name.upper()}_URL"] = env[f"GATEWAY_{name.upper()}_URLS"] = daemons[name].url
        client = stack.enter_context(
            httpx.Client(base_url=daemons["gateway"].url, timeout=60, trust_env=False)
        )
        told = False
        for status in (200, 500, 503, 504):
            server.answer = (status, {"content-type": "application/json"}, json.dumps(said).encode())
            for path, body in (
                ("/v1/embeddings", {"model": MODEL, "input": f"{BODY} {status}"}),
                ("/v1/embeddings", {"model": MODEL, "input": [f"{BODY} {status}"] * 200}),
                (
                    "/v1/chat/completions",
                    {"model": "openai/m", "messages": [{"role": "user", "content": BODY}]},
                ),
            ):
                answer = client.post(path, json=body)
                assert answer.status_code >= 400
                told |= BODY in answer.text
        assert told
        for name, daemon in daemons.items():
            shown = client.get(f"{daemon.url}/metrics").text + client.get(f"{daemon.url}/readyz").text
            assert BODY not in shown, f"in what {name} shows"
            assert BODY not in daemon.text(), f"in the log of {name}"


def test_series_do_not_grow_with_what_callers_make_up(house: House) -> None:
    def series() -> int:
        text = httpx.get(f"{house.gateway}/metrics", trust_env=False).text
        return sum(1 for line in text.splitlines() if not line.startswith("#"))

    def ask(number: int) -> None:
        headers = {"authorization": f"Bearer {house.key}"}
        with httpx.Client(base_url=house.gateway, headers=headers, trust_env=False) as client:
            client.get(f"/made-up/{number}")
            client.get(f"/v1/collections/made-up-{number}")
            client.request(f"METHOD{number}", "/v1/models")
            client.get("/v1/models", headers={"authorization": f"Bearer sh-{number}"})

    ask(0)
    before = series()
    for number in range(1, 30):
        ask(number)
    assert series() <= before + 2  # which methods and statuses there are, not which paths and keys


def test_nobody_writes_a_line_of_a_log(house: House) -> None:
    forged = b"%0a%7b%22event%22:%22forged%22%7d"
    lines = b"x-request-id: a\x0b{\r\ntraceparent: \xff\xfe\r\nauthorization: Bearer sh-a\x1b[31m\r\n"
    for head in (
        b"GET /v1/models/" + forged + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: x\r\n" + lines + b"\r\n",
        b"GET /%0d%0aforged HTTP/1.1\r\nhost: x\r\n\r\n",
    ):
        answer = answers_to(house.gateway, head)
        assert b"\nforged" not in answer
        assert answer.startswith(b"HTTP/1.1 4")
    for daemon in house.daemons.values():
        for line in daemon.text().splitlines():
            assert isinstance(json.loads(line), dict)
            assert '"event":"forged"' not in line
            assert "\x1b" not in line


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e", "..%2f..%2fetc", "%2fetc%2fpasswd", "a%00b", "a%5c..%5cb", ".", "%2e%2e%2fkeys"]
)
def test_no_name_leads_out_of_its_folder(house: House, name: str) -> None:
    before = {path for path in house.data.rglob("*") if "vectors" not in path.parts}
    head = (
        f"host: x\r\nauthorization: Bearer {house.key}\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}"
    )
    for line in (
        f"PUT /v1/collections/{name}",
        f"DELETE /v1/collections/{name}",
        f"GET /v1/collections/{name}",
        f"GET /v1/collections/notes/snapshots/{name}",
        f"PUT /v1/collections/notes/snapshots/{name}",
        f"DELETE /v1/collections/notes/snapshots/{name}",
        f"GET /v1/distill/datasets/{name}/files/manifest.json",
        f"GET /v1/distill/datasets/d/files/{name}",
        f"GET /v1/distill/datasets/{name}/files/keys.json",
        f"GET /v1/distill/jobs/{name}",
        f"GET /v1/runs/{name}",
    ):
        answer = answers_to(house.gateway, f"{line} HTTP/1.1\r\n{head}".encode())
        assert answer[9:12] in (b"400", b"404", b"405"), f"{line}: {answer[:500]!r}"
        assert b"sha256" not in answer
    assert {path for path in house.data.rglob("*") if "vectors" not in path.parts} >= before
