"""Mixed requests at a steady rate, whatever becomes of them, and a note of each outcome.

The rate is that of an open loop: a request is sent when its time has come, not when the one before was
answered, so that a daemon that stands still is not spared. The client stands in for a load balancer as
well: with several gateways it takes each in turn, and goes to the next when one refuses connections or says
that it is leaving.
"""

import asyncio
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

import httpx
import orjson

from tests.bench.chat.house import body_of as chat_body
from tests.bench.ollama_stub import MODEL
from tests.chaos.town import COLLECTION, DIMENSION, Town
from tests.unit.distill.builders import run

RATE: Final = 200.0
CLIENT_TIMEOUT_S: Final = 15.0
IN_FLIGHT_MAX: Final = 4000
WARM_TEXTS: Final = 50
CHECKED_AT_ONCE: Final = 200
DRAINING: Final = "x-stillhouse-draining"
NDJSON: Final = {"content-type": "application/x-ndjson"}
JSON: Final = {"content-type": "application/json"}

NEEDS: Final = {
    "embed": "embedd",
    "embed new": "embedd",
    "chat": "chatd",
    "search": "vectord",
    "upsert": "vectord",
    "validate": "validators",
    "record": "distill",
}
"""The kinds of requests, each with the one daemon that it needs."""
DURABLE: Final = "durable upsert"
"""A kind on top: a point that is on the medium when it is acknowledged, whatever that takes."""

REPEATABLE: Final = ("embed", "embed new", "search", "validate")
"""Kinds that change nothing, which the gateway sends again where one of several replicas failed."""


@dataclass(frozen=True)
class Outcome:
    """What became of a request. Seconds count from the traffic's start; status 0 is no answer at all."""

    kind: str
    at_s: float
    seconds: float
    status: int
    code: str | None = None

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def ended_s(self) -> float:
        return self.at_s + self.seconds


@dataclass(frozen=True)
class Request:
    kind: str
    method: str
    path: str
    body: bytes
    headers: dict[str, str]
    id: str | None = None
    """Of the run or point that is there for good when this is acknowledged."""


@dataclass
class Maker:
    """Makes requests, no two writes with the same id: `name` tells this traffic's from another's.

    With `points_max`, points are written over from the beginning after so many.
    """

    name: str
    points_max: int | None = None
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def make(self, kind: str) -> Request:
        number = next(self._numbers)
        made: dict[str, Callable[[int], Request]] = {
            "embed": self._embed,
            "embed new": self._embed_new,
            "chat": self._chat,
            "search": self._search,
            "upsert": self._upsert,
            DURABLE: self._durable,
            "validate": self._validate,
            "record": self._record,
        }
        return made[kind](number)

    def _embed(self, number: int) -> Request:
        return self._embedding("embed", f"warm text {number % WARM_TEXTS}")

    def _embed_new(self, number: int) -> Request:
        return self._embedding("embed new", f"new text {number} of {self.name}")

    def _embedding(self, kind: str, text: str) -> Request:
        body = orjson.dumps({"model": MODEL, "input": text})
        return Request(kind, "POST", "/v1/embeddings", body, JSON)

    def _chat(self, _: int) -> Request:
        return Request("chat", "POST", "/v1/chat/completions", chat_body("fast").encode(), JSON)

    def _vector(self) -> list[float]:
        return [self.chance.gauss(0, 1) for _ in range(DIMENSION)]

    def _search(self, _: int) -> Request:
        body = orjson.dumps({"vector": self._vector(), "k": 5})
        return Request("search", "POST", f"/v1/collections/{COLLECTION}/search", body, JSON)

    def _upsert(self, number: int) -> Request:
        return self._point("upsert", number, "wal")

    def _durable(self, number: int) -> Request:
        return self._point(DURABLE, number, "fsync")

    def _point(self, kind: str, number: int, durability: str) -> Request:
        point = f"{self.name}-{number % self.points_max if self.points_max else number}"
        body = orjson.dumps({"points": [{"id": point, "vector": self._vector()}], "durability": durability})
        return Request(kind, "PUT", f"/v1/collections/{COLLECTION}/points", body, JSON, point)

    def _validate(self, number: int) -> Request:
        context = {"schema": {"type": "object", "required": ["seats"]}}
        body = orjson.dumps({"kind": "json_schema", "artifact": {"seats": number}, "context": context})
        return Request("validate", "POST", "/v1/validate", body, JSON)

    def _record(self, number: int) -> Request:
        run_id = f"{self.name}-{number}"
        return Request("record", "POST", "/v1/runs", orjson.dumps(run(run_id)) + b"\n", NDJSON, run_id)


def _accepted(request: Request, response: httpx.Response) -> bool:
    if not response.is_success:
        return False
    return request.kind != "record" or response.json()["accepted"] == 1


def _code(response: httpx.Response) -> str | None:
    """The code of an error in the envelope. None: it is no error, or not told as one should be."""
    if response.is_success:
        return None
    try:
        code: str = response.json()["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return None
    return code


class Traffic:
    """Sends from a thread of its own, from `with` to its end, and waits for the last answer.

    `rate` is in requests a second; None stands for `callers` that each send when they are answered.
    """

    def __init__(
        self,
        town: Town,
        *,
        kinds: Iterable[str] = NEEDS,
        rate: float | None = RATE,
        callers: int = 32,
        points_max: int | None = None,
    ) -> None:
        self._urls = town.urls
        self._headers = town.headers
        self._kinds = list(kinds)
        self._rate = rate
        self._callers = callers
        self._maker = Maker(f"at-{time.monotonic_ns():x}", points_max)
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._in_flight = 0
        self.outcomes: list[Outcome] = []
        self.acknowledged: dict[str, list[str]] = {"upsert": [], DURABLE: [], "record": []}
        self.unsent = 0
        """Requests that were not sent since too many were under way."""
        self.started = time.monotonic()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def now(self) -> float:
        return time.monotonic() - self.started

    def of(self, kinds: Iterable[str]) -> list[Outcome]:
        wanted = set(kinds)
        return [outcome for outcome in self.outcomes if outcome.kind in wanted]

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=IN_FLIGHT_MAX, max_keepalive_connections=IN_FLIGHT_MAX)
        async with (
            httpx.AsyncClient(
                limits=limits, timeout=CLIENT_TIMEOUT_S, headers=self._headers, trust_env=False
            ) as client,
            asyncio.TaskGroup() as tasks,
        ):
            if self._rate is None:
                for number in range(self._callers):
                    tasks.create_task(self._call_on(client, number))
            else:
                await self._call_at(self._rate, client, tasks)

    async def _call_on(self, client: httpx.AsyncClient, number: int) -> None:
        for turn in itertools.count(number):
            if self._over.is_set():
                return
            await self._send(client, self._maker.make(self._kinds[turn % len(self._kinds)]), turn)

    async def _call_at(self, rate: float, client: httpx.AsyncClient, tasks: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        first = loop.time()
        for number in itertools.count():
            await asyncio.sleep(max(0.0, first + number / rate - loop.time()))
            if self._over.is_set():
                return
            if self._in_flight >= IN_FLIGHT_MAX:
                self.unsent += 1
                continue
            request = self._maker.make(self._kinds[number % len(self._kinds)])
            tasks.create_task(self._send(client, request, number // len(self._kinds)))

    async def _send(self, client: httpx.AsyncClient, request: Request, turn: int) -> None:
        self._in_flight += 1
        started = self.now()
        status, code = 0, None
        try:
            response = await self._through(client, request, turn)
            status, code = response.status_code, _code(response)
            if request.id is not None and _accepted(request, response):
                self.acknowledged[request.kind].append(request.id)
        except httpx.TransportError as error:
            code = type(error).__name__
        finally:
            self._in_flight -= 1
            self.outcomes.append(Outcome(request.kind, started, self.now() - started, status, code))

    async def _through(self, client: httpx.AsyncClient, request: Request, turn: int) -> httpx.Response:
        """By the gateway whose turn it is, or the next one that takes it."""
        for number, last in _marked(range(turn, turn + len(self._urls))):
            url = self._urls[number % len(self._urls)] + request.path
            try:
                response = await client.request(
                    request.method, url, content=request.body, headers=request.headers
                )
            except httpx.ConnectError:
                if last:
                    raise
                continue
            if last or DRAINING not in response.headers:
                return response
        raise AssertionError("there is no gateway")


def _marked(numbers: Sequence[int]) -> Iterable[tuple[int, bool]]:
    """Each number, and whether it is the last."""
    return ((number, number == numbers[-1]) for number in numbers)


def told(outcomes: Iterable[Outcome]) -> str:
    """How often each answer came, for a message."""
    return str(dict(Counter((each.kind, each.status, each.code) for each in outcomes)))


def lost(town: Town, acknowledged: dict[str, list[str]]) -> list[str]:
    """The acknowledged runs and points that are not there."""
    missing: list[str] = []
    with town.client() as client:
        points = acknowledged["upsert"] + acknowledged[DURABLE]
        for start in range(0, len(points), CHECKED_AT_ONCE):
            asked = points[start : start + CHECKED_AT_ONCE]
            answer = client.post(f"/v1/collections/{COLLECTION}/points/get", json={"ids": asked})
            found = {point["id"] for point in answer.raise_for_status().json()["points"]}
            missing += [point for point in asked if point not in found]
        for run_id in acknowledged["record"]:
            if client.get(f"/v1/runs/{run_id}").status_code != 200:
                missing.append(run_id)
    return missing
