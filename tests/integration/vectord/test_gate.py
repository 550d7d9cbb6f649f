"""The role gate under fire: points that differ by role alone, and callers who want those of the others.

20,000 points in 40 roles and 20,000 questions under the marker `chaos`, a twentieth of both otherwise. What a
role may see is worked out here from the point's id, without any of vectord's code.
"""

import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import numpy.typing as npt
import pytest

from services.testing import free_port
from tests.processes import running

pytestmark = pytest.mark.enable_socket

ROLES: Final = 40
DIMENSION: Final = 32
K: Final = 10
PATIENCE_S: Final = 120.0
RECALL_MIN: Final = 0.99
JOBS: Final = (
    "welder", "nurse", "cook", "driver", "picker", "packer", "painter", "plumber", "mason", "roofer",
    "tiler", "glazier", "carpenter", "electrician", "fitter", "machinist", "assembler", "inspector",
    "loader", "porter",
)  # fmt: skip
LOOK_ALIKES: Final = str.maketrans("aeopcxi", "аеорсхі")  # noqa: RUF001 - Cyrillic, as an attacker has them

Json = dict[str, Any]
Floats = npt.NDArray[np.float32]


def role_name(number: int) -> str:
    """Twenty jobs at two sites: `Senior Welder` and `Junior Welder` have most letters in common."""
    return f"{'Senior' if number < ROLES // 2 else 'Junior'} {JOBS[number % len(JOBS)].title()}"


def alias(number: int) -> str:
    return f"{JOBS[number % len(JOBS)]} grade {'two' if number < ROLES // 2 else 'one'}"


def visible(number: int) -> set[int]:
    """A senior sees the junior of the same job, and not the other way round."""
    return {number, number + ROLES // 2} if number < ROLES // 2 else {number}


CATALOGUE: Final = {
    "roles": [
        {
            "name": role_name(number),
            "aliases": [alias(number)],
            "compatible": [role_name(other) for other in sorted(visible(number) - {number})],
        }
        for number in range(ROLES)
    ]
}


def fullwidth(name: str) -> str:
    return "".join(chr(ord(letter) + 0xFEE0) if letter.isalpha() else letter for letter in name)


SPELLINGS: Final = (
    role_name,
    lambda number: role_name(number).upper(),
    lambda number: f"  {role_name(number).replace(' ', '_')}s ",
    lambda number: fullwidth(role_name(number)),
    alias,
    lambda number: alias(number).replace(" ", "-").swapcase(),
)
NO_ROLES: Final = (
    lambda _: None,
    lambda _: "",
    lambda _: "  \u200b\t",
    lambda _: "*",
    lambda _: "null",
    lambda _: "surgeon",
    lambda number: role_name(number).translate(LOOK_ALIKES),
    lambda number: f"{role_name(number)},{role_name((number + 1) % ROLES)}",
    lambda number: f"{role_name(number)} OR 1=1",
    lambda number: role_name(number).split()[1] + "\x00",
    lambda number: f"not {role_name(number)}",
    lambda number: role_name(number)[:-1],
)


@dataclass
class House:
    """The points as this test knows them, and a client of the vectord that holds them."""

    http: httpx.Client
    vectors: Floats
    topics: int
    chance: random.Random
    asked: Counter[str] = field(default_factory=Counter)
    leaks: list[str] = field(default_factory=list)
    recalls: list[float] = field(default_factory=list)

    def post(
        self, path: str, body: Json, *, status: int = 200, headers: dict[str, str] | None = None
    ) -> Json:
        answer = self.http.post(path, json=body, headers=headers)
        assert answer.status_code == status, (path, body, answer.text)
        parsed: Json = answer.json()
        return parsed

    def vector(self, number: int, topic: int) -> Floats:
        found: Floats = self.vectors[topic * ROLES + number]
        return found

    def saw(self, way: str, number: int, ids: list[str]) -> None:
        """Note every id that the role must not see."""
        allowed = visible(number)
        self.leaks += [
            f"{way}: {key} shown to {number}" for key in ids if int(key.split("-")[0]) not in allowed
        ]

    def truth(self, number: int, query: Floats) -> Floats:
        """The cosines of the nearest `K` that the role may see, best first."""
        mine = np.sort([topic * ROLES + seen for topic in range(self.topics) for seen in visible(number)])
        scores = self.vectors[mine] @ query / np.linalg.norm(query)
        best: Floats = np.sort(scores)[::-1][:K]
        return best


def unit(rows: Floats) -> Floats:
    scaled: Floats = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return scaled


def made_up(points: int, seed: int) -> Floats:
    """For each topic one direction, and for each role a step of a thousandth beside it."""
    chance = np.random.default_rng(seed)
    topics = chance.standard_normal((points // ROLES, 1, DIMENSION), dtype=np.float32)
    steps = chance.standard_normal((points // ROLES, ROLES, DIMENSION), dtype=np.float32)
    return unit((topics + 1e-3 * steps).reshape(points, DIMENSION))


@contextmanager
def house(folder: Path, points: int, seed: int) -> Iterator[House]:
    env = {
        "VECTORD_EMBEDD_URL": f"http://127.0.0.1:{free_port()}",
        "VECTORD_OPTIMIZE_AFTER_POINTS": str(max(100, points)),
        "VECTORD_CANARY_INTERVAL_S": "0.5",
    }
    with (
        running("vectord", folder, env=env) as process,
        httpx.Client(base_url=process.url, timeout=PATIENCE_S, trust_env=False) as http,
    ):
        made = House(http, made_up(points, seed), points // ROLES, random.Random(seed))
        assert http.put("/v1/roles", json=CATALOGUE).status_code == 200
        assert http.put("/v1/collections/g", json={"dimension": DIMENSION, "gated": True}).status_code == 200
        fill(made, points)
        deadline = time.monotonic() + PATIENCE_S
        while "vectord_optimize_seconds_count 1.0" not in http.get("/metrics").text:
            assert time.monotonic() < deadline, "the index was not built"
            time.sleep(0.05)
        yield made
        assert "Traceback" not in process.text()


def fill(made: House, points: int) -> None:
    """Payloads name other roles, as ill-meaning writers do: that must change nothing."""
    for start in range(0, points, 500):
        batch = [
            {
                "id": f"{row % ROLES}-{row // ROLES}",
                "vector": made.vectors[row].tolist(),
                "text": f"note {row // ROLES}: the shift begins early, bring your own boots",
                "role": SPELLINGS[row % len(SPELLINGS)](row % ROLES),
                "payload": {
                    "topic": row // ROLES,
                    "role": role_name((row + 1) % ROLES),
                    "role_key": role_name((row + 1) % ROLES).lower(),
                },
            }
            for row in range(start, min(start + 500, points))
        ]
        answer = made.http.put("/v1/collections/g/points", json={"points": batch})
        assert answer.status_code == 200, answer.text


# --- questions ----------------------------------------------------------------------------------


def wanted(made: House) -> tuple[int, str, int, Floats]:
    """A role and a spelling of it, and a topic with a vector near that of *another* role's point on it."""
    number, topic = made.chance.randrange(ROLES), made.chance.randrange(made.topics)
    other = (number + 1 + made.chance.randrange(ROLES - 1)) % ROLES
    return number, made.chance.choice(SPELLINGS)(number), topic, made.vector(other, topic)


def ask_plainly(made: House) -> None:
    number, role, _, query = wanted(made)
    body = {"vector": query.tolist(), "k": K, "role": role, "with": []}
    hits = made.post("/v1/collections/g/search", body)["hits"]
    made.saw("search", number, [hit["id"] for hit in hits])
    truth = made.truth(number, query)
    near_enough = sum(hit["score"] >= truth[-1] - 1e-5 for hit in hits)
    made.recalls.append(near_enough / len(truth))


def ask_without_a_role(made: House) -> None:
    number = made.chance.randrange(ROLES)
    role = made.chance.choice(NO_ROLES)(number)
    more: Json = {} if role is None else {"role": role}
    path, body = made.chance.choice(
        (
            ("/v1/collections/g/search", {"vector": made.vector(number, 0).tolist()}),
            ("/v1/collections/g/search", {"text": "boots", "mode": "sparse"}),
            ("/v1/collections/g/points/get", {"ids": [f"{number}-0"]}),
            ("/v1/collections/g/points/scroll", {"limit": 5}),
            ("/v1/collections/g/points/count", {}),
            ("/v1/collections/g/points/facets", {"key": "topic"}),
            ("/v1/collections/g/points/delete", {"filter": {}}),
            ("/v1/retrieve", {"query": "boots", "collections": ["g"], "mode": "sparse"}),
        )
    )
    error = made.post(path, {**body, **more}, status=400)["error"]
    assert error["code"] in {"role_required", "role_unknown"}, error


def ask_with_a_filter(made: House) -> None:
    """Filters that would widen what is seen, were they joined to the gate's by anything but `and`."""
    number, role, topic, query = wanted(made)
    other = role_name((number + 1) % ROLES)
    everything: Json = {"key": "topic", "exists": True}
    filters: tuple[Json, ...] = (
        {"should": [{"key": "role", "match": other}, everything]},
        {"should": [{"must_not": [{"key": "role", "match": role_name(number)}]}, everything]},
        {"must_not": [{"must": [{"key": "role", "match": role_name(number)}]}]},
        {"must_not": [{"must_not": [everything]}]},
        {"must": [{"key": "role_key", "any": [role_name(seen).lower() for seen in range(ROLES)]}]},
        {"should": [{"should": [{"should": [everything]}]}], "must": [], "must_not": []},
        {"must": [{"key": "topic", "match": topic}]},
        {"must_not": [{"key": "nothing", "exists": True}]},
        {},
    )
    body: Json = {
        "vector": query.tolist(),
        "k": made.chance.choice((1, K, 1000)),
        "role": role,
        "filter": made.chance.choice(filters),
        "exact": made.chance.random() < 0.3,
        "with": made.chance.choice(([], ["payload"], ["text", "vector"])),
    }
    hits = made.post("/v1/collections/g/search", body)["hits"]
    made.saw("filter", number, [hit["id"] for hit in hits])


def ask_otherwise(made: House) -> None:
    """Every other way to a point."""
    number, role, topic, query = wanted(made)
    rows = [f"{seen}-{topic}" for seen in range(ROLES)]
    on_topic = {"must": [{"key": "topic", "match": topic}]}
    path, body = made.chance.choice(
        (
            ("points/get", {"ids": rows}),
            ("points/scroll", {"filter": on_topic}),
            ("points/scroll", {"ids": rows}),
            ("points/count", {"filter": on_topic}),
            ("points/count", {"ids": rows}),
            ("points/facets", {"key": "role", "filter": on_topic}),
            ("search", {"text": f"note {topic} boots", "mode": "sparse", "k": 1000}),
            ("search", {"text": "boots", "vector": query.tolist(), "mode": "hybrid", "k": 50}),
            ("search/batch", {}),
            ("retrieve", {"query": f"note {topic}", "collections": ["g"], "mode": "sparse", "k": 100}),
        )
    )
    if path == "search/batch":
        mine = [{"vector": query.tolist(), "role": role, "k": K}] * 2
        results = made.post("/v1/collections/g/search/batch", {"searches": mine})["results"]
        found: Json = {"points": [hit for result in results for hit in result["hits"]]}
    elif path == "retrieve":
        found = made.post("/v1/retrieve", {**body, "role": role})
        assert found["gate"]["dropped"] == []
    else:
        found = made.post(f"/v1/collections/g/{path}", {**body, "role": role})
    if path == "points/count":
        assert found["count"] == len(visible(number))
        return
    if path == "points/facets":
        assert sum(item["count"] for item in found["facets"]) == len(visible(number))
        return
    shown = [item["id"] for item in [*found.get("points", ()), *found.get("hits", ())]]
    assert shown
    made.saw(path, number, shown)


def ask_with_a_limited_key(made: House) -> None:
    number, role, topic, query = wanted(made)
    other = role_name((number + 1) % ROLES)
    headers = {"x-stillhouse-roles": role_name(number)}
    body = {"vector": query.tolist(), "k": K, "role": role}
    hits = made.post("/v1/collections/g/search", body, headers=headers)["hits"]
    made.saw("limited", number, [hit["id"] for hit in hits])
    path, more = made.chance.choice(
        (
            ("search", {**body, "role": other}),
            ("search/batch", {"searches": [body, {**body, "role": other}]}),
            ("points/get", {"ids": [f"{number}-{topic}"], "role": other}),
            ("points/facets", {"key": "topic", "role": other}),
            ("points/export", {}),
            ("snapshots", {}),
            ("restore", {"snapshot": "none", "collection": "g"}),
        )
    )
    status = 404 if path == "restore" else 403
    code = made.post(f"/v1/collections/g/{path}", more, status=status, headers=headers)["error"]["code"]
    assert code in {"role_forbidden", "snapshot_not_found"}


KINDS: Final = (
    (ask_plainly, 55),
    (ask_without_a_role, 15),
    (ask_with_a_filter, 15),
    (ask_otherwise, 10),
    (ask_with_a_limited_key, 5),
)


def under_fire(folder: Path, size: int) -> None:
    with house(folder, size, seed=7) as made:
        for _ in range(size):
            (ask,) = made.chance.choices([kind for kind, _ in KINDS], [weight for _, weight in KINDS])
            ask(made)
            made.asked[ask.__name__] += 1
        metrics = made.http.get("/metrics").text.splitlines()
        recall = sum(made.recalls) / len(made.recalls)
        print(f"{size} points, {dict(made.asked)}: {len(made.leaks)} leaks, recall {recall:.4f}")
        assert made.leaks == []
        assert recall >= RECALL_MIN
        for name in (
            "vectord_gate_leaks_total",
            "vectord_canary_leaks_total",
            "vectord_canaries_missing_total",
        ):
            assert f"{name} 0.0" in metrics
        assert made.http.get("/readyz").json()["dependencies"]["gate"]["ok"]
        everything = made.http.get("/v1/collections/g").json()
        assert everything["count"] == size  # nobody deleted anything


def test_a_role_sees_its_own_and_no_other(tmp_path: Path) -> None:
    under_fire(tmp_path, 1000)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_a_role_sees_its_own_and_no_other_at_full_size(tmp_path: Path) -> None:
    under_fire(tmp_path, 20_000)
