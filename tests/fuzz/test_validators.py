"""Whatever is sent to `validators`, it answers as its contract says, and soon.

`FUZZ_S` is how long random input goes on: 8 seconds with the other tests, half an hour in `make fuzz`.
"""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from services.testing import client_for
from tests.fuzz import hostile
from tests.mutation.agency import Agency
from validators.app import create_app
from validators.settings import Settings

CPU_S_MAX = (
    0.1 if "FUZZ_S" in os.environ else 1.0
)  # any machine runs the tests; `make fuzz` has one to itself
TOO_LONG_REPEATS = 4
SHORT_S = 60.0
LONG_S = 1800.0
SEVERITIES = {"error", "review", "warning", "info"}
JSON = {"content-type": "application/json"}

lengths = pytest.mark.parametrize("default_s", [SHORT_S, pytest.param(LONG_S, marks=pytest.mark.fuzz)])


@pytest.fixture(scope="module")
def roster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three thousand workers who all could be proposed instead of one another, were they free."""
    agency = Agency(random.Random(1))
    for number in range(3_000):
        agency.hire(
            worker_id=f"W-{number:05d}",
            city="Columbus",
            state="OH",
            roles=["Forklift Operator"],
            certs=[("OSHA-10", date(2030, 1, 1))] if number % 10 == 0 else [],
        )
    path = tmp_path_factory.mktemp("fuzz") / "roster.parquet"
    agency.write(path)
    return path


class Daemon:
    """The daemon under fire: counts its answers, and times them by the processor's clock."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.answers: Counter[int] = Counter()
        self.slowest = 0.0

    def __str__(self) -> str:
        total = sum(self.answers.values())
        return f"{total} requests, answers {dict(self.answers)}, slowest {self.slowest:.3f} s"

    async def ask(self, content: bytes) -> None:
        """Send it. Raises `AssertionError` for a 5xx, a malformed verdict, and one that costs too much."""
        answer, spent = await self._timed(content)
        repeats = TOO_LONG_REPEATS
        limit = CPU_S_MAX if len(content) <= hostile.BYTES_MAX else 10 * CPU_S_MAX
        while spent > limit and repeats:  # the first call compiles, and the collector has its turns
            spent = min(spent, (await self._timed(content))[1])
            repeats -= 1
        assert spent <= limit, f"{spent:.3f} s of processor time for {described(content)}"
        self.slowest = max(self.slowest, spent)
        self.answers[answer.status_code] += 1
        if answer.status_code == 200:
            check(answer.json(), content)
        else:
            assert answer.status_code in (400, 413), f"{answer.status_code} for {described(content)}"
            assert set(answer.json()["error"]) == {"message", "type", "code", "param", "request_id"}

    async def _timed(self, content: bytes) -> tuple[httpx.Response, float]:
        started = time.process_time()
        answer = await self._client.post("/v1/validate", content=content, headers=JSON)
        return answer, time.process_time() - started


def described(content: bytes) -> str:
    return f"{len(content)} bytes: {content[:300]!r} … {content[-200:]!r}"


def check(verdict: dict[str, Any], content: bytes) -> None:
    """What every verdict keeps to."""
    request = orjson.loads(content)
    assert verdict["ok"] == (verdict["verdict"] == "accepted")
    artifact = request["artifact"]
    if isinstance(artifact, str):
        try:
            artifact = orjson.loads(artifact)
        except orjson.JSONDecodeError:
            assert [(f["code"], f["path"]) for f in verdict["findings"]] == [("schema.invalid", "")]
            return
    for finding in verdict["findings"]:
        assert finding["severity"] in SEVERITIES
        if (span := finding.get("span")) is not None:
            text = at(artifact, finding["path"])
            assert isinstance(text, str), finding
            assert 0 <= span[0] <= span[1] <= len(text), finding


def at(value: Any, pointer: str) -> Any:
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


@asynccontextmanager
async def daemon(roster: Path) -> AsyncIterator[Daemon]:
    async with client_for(create_app(Settings(roster=roster))) as client:
        yield Daemon(client)


@lengths
def test_random_requests(roster: Path, default_s: float) -> None:
    seed = int(os.environ.get("FUZZ_SEED", "1" if default_s == SHORT_S else str(time.time_ns() % 10**9)))
    limit = float(os.environ.get("FUZZ_S", default_s))
    rng = random.Random(seed)

    async def story() -> None:
        async with daemon(roster) as under_fire:
            until = time.monotonic() + limit
            try:
                while time.monotonic() < until:
                    await under_fire.ask(hostile.body(rng))
            finally:
                print(f"\nseed {seed}: {under_fire}")
            assert under_fire.answers[200] > 0

    asyncio.run(story())


# --- one shape of malice each -----------------------------------------------------------------

SIZE = 60_000
NO_LONGER_THAN = 30_000  # where two hostile texts share one artifact


def texts() -> Iterator[bytes]:
    for token in hostile.TOKENS:
        whole = hostile.filled(token, SIZE)
        yield orjson.dumps(
            {
                "kind": "sms",
                "artifact": {"to": "+16142000001", "body": f"Hi {whole}"},
                "context": {"recipient": hostile.WHOM},
            }
        )
        half = hostile.filled(token, NO_LONGER_THAN)
        draft = {"to": ["w1@gmail.com"], "subject": half, "body": half + "!"}
        context = {"recipient": {"name": "Bob Young"}, "url_allowlist": ["a.com"], "audience": "worker"}
        yield orjson.dumps({"kind": "email", "artifact": draft, "context": context})


def fields() -> Iterator[bytes]:
    for token in (
        "a",
        ".",
        "@",
        "a.",
        "a@",
        "<",
        "<a",
        "é",
        "\u0315\u0300",
        "\ufdfa",
        "xn--",
        "1",
        "\r\n",
        "\u202e",
        ",",
    ):
        whole = hostile.filled(token, SIZE)
        for draft in (
            {"to": [whole], "subject": "s", "body": "b"},
            {"to": ["a@b.co"], "from": f"{whole} <a@b.co>", "subject": "s", "body": "b"},
            {"to": ["a@b.co"], "subject": "s", "body": "b", "headers": {whole: "x"}},
            {"to": ["a@b.co"], "subject": "s", "body": "b", "headers": {"X-A": whole}},
        ):
            yield orjson.dumps({"kind": "email", "artifact": draft, "context": {}})
        yield orjson.dumps({"kind": "sms", "artifact": {"to": whole, "body": "b"}, "context": {}})
        fill = {"worker_id": "W-00000", "name": whole}
        order = {"order": hostile.ORDER | {"count": 1}}
        yield orjson.dumps(
            {"kind": "fill", "artifact": {"order_id": "O-1", "fills": [fill]}, "context": order}
        )


def fills() -> Iterator[bytes]:
    for worker, count in (
        (lambda n: {"worker_id": f"X-{n}"}, 2_000),
        (lambda n: {"worker_id": f"W-{n:05d}"}, 2_000),
        (lambda _: {"worker_id": "W-00000"}, 2_000),
        (lambda n: {"worker_id": f"X-{n}", "name": f"Robert Young {n}"}, 1_000),
        (lambda n: {"worker_id": f"W-{n:05d}", "name": "Nobody I. Know"}, 1_000),
        (lambda n: {"x": n}, 2_000),
        (lambda n: n, 4_000),
    ):  # type: tuple[Callable[[int], Any], int]
        artifact = {"order_id": "O-1", "fills": [worker(n) for n in range(count)]}
        for asked in (1, count):
            context = {"order": hostile.ORDER | {"count": asked}}
            yield orjson.dumps({"kind": "fill", "artifact": artifact, "context": context})


def schemas() -> Iterator[bytes]:
    for pattern in hostile.PATTERNS:
        for value in ("a" * SIZE, "a" * SIZE + "!", "ab " * (SIZE // 3)):
            yield orjson.dumps(
                {"kind": "json_schema", "artifact": value, "context": {"schema": {"pattern": pattern}}}
            )


@pytest.mark.parametrize("shape", [texts, fields, fills, schemas])
def test_hostile_requests(roster: Path, shape: Callable[[], Iterator[bytes]]) -> None:
    async def story() -> None:
        async with daemon(roster) as under_fire:
            for content in shape():
                await under_fire.ask(content)
            print(f"\n{shape.__name__}: {under_fire}")

    asyncio.run(story())
