"""Evidence by what it is, by what it belongs to and by words, with columns and without."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.distill.builders import Json, distill, done, episode, run, send, verdict

pytestmark = pytest.mark.anyio

CONTEXT = {
    "collection": "notes",
    "id": "n1",
    "role": "welder",
    "score": 0.9,
    "text": "Torches are in shed four",
    "text_sha256": "0" * 64,
}


def stories() -> Iterator[Json]:
    yield from episode("JO-1")
    yield from episode("JO-2", code="fill.role_mismatch")
    yield run("plain", verdict=verdict(), question="Straße nach Köln?", answer='She said "Yes", twice')
    yield run("unjudged", ts="2026-11-05T10:00:00Z")
    yield run(
        "welding",
        verdict=verdict(),
        retrieved_context=[CONTEXT],
        model={"provider": "openai", "name": "tiny"},
    )
    yield run(
        "calls", output={"content": None, "tool_calls": [{"function": {"arguments": '{"city":"Lima"}'}}]}
    )


async def listed(client: httpx.AsyncClient, **params: Any) -> list[str]:
    """The keys of what is found, page by page, in the order in which it is given."""
    found: list[str] = []
    while True:
        response = await client.get("/v1/distill/evidence", params=params)
        assert response.status_code == 200, response.text
        page = response.json()
        found += [one["evidence"]["source"]["key"] for one in page["evidence"]]
        if page.get("cursor") is None:
            return found
        params["cursor"] = page["cursor"]


CASES: list[tuple[dict[str, Any], set[str]]] = [
    ({"category": "accepted"}, {"JO-1-2", "JO-2-2", "plain", "welding"}),
    ({"category": "rejected", "code": "fill.underage"}, {"JO-1-1"}),
    ({"code": "fill.role_mismatch"}, {"JO-2-1"}),
    ({"code": "nothing.of.the.kind"}, set()),
    ({"role": "welder"}, {"welding"}),
    ({"kind": "fill"}, {"JO-1-1", "JO-1-2", "JO-2-1", "JO-2-2"}),
    ({"model": "openai/tiny"}, {"welding"}),
    ({"model": "tiny", "role": "welder"}, {"welding"}),
    ({"model": "openai"}, set()),
    ({"episode_id": "JO-2"}, {"JO-2-1", "JO-2-2"}),
    ({"episode_id": "JO-2", "category": "accepted"}, {"JO-2-2"}),
    ({"run_id": "plain"}, {"plain"}),
    ({"run_id": "plain", "episode_id": "JO-2"}, set()),
    ({"run_id": "nobody"}, set()),
    ({"since": "2026-11-05T00:00:00Z"}, {"unjudged"}),
    ({"until": "2026-11-05T10:00:00Z", "kind": "fill"}, {"JO-1-1", "JO-1-2", "JO-2-1", "JO-2-2"}),
    ({"q": "STRASSE köln"}, {"plain"}),
    ({"q": '"yes",'}, {"plain"}),
    ({"q": "torches shed"}, {"welding"}),
    ({"q": "lima"}, {"calls"}),
    ({"q": "torch"}, {"welding"}),  # how the word begins
    ({"q": "orches"}, set()),
    ({"q": "twice said"}, {"plain"}),
    ({"q": "?"}, {"plain"}),
    ({"q": "content"}, set()),  # a name of a field, and nobody's word
    ({"q": "mend", "kind": "fill", "category": "accepted"}, {"JO-1-2", "JO-2-2"}),
]


async def ready(client: httpx.AsyncClient) -> None:
    await send(client, stories())
    await done(client, stage="materialize")
    await done(client, stage="score")


@pytest.mark.parametrize("columns", ["with columns", "without columns"])
async def test_what_is_found(tmp_path: Path, columns: str) -> None:
    async with distill(tmp_path) as client:
        await ready(client)
        if columns == "without columns":
            for pattern in ("*.columns-*", "*.words-*"):
                for path in (tmp_path / "distill" / "index").glob(pattern):
                    path.unlink()
        everything = await listed(client)
        assert len(everything) == 8
        for asked, expected in CASES:
            found = await listed(client, **asked)
            assert set(found) == expected, asked
            assert found == [one for one in everything if one in expected], asked


async def test_pages_of_one_and_of_little_work(tmp_path: Path) -> None:
    """However short pages are, nothing is left out and nothing comes twice."""
    async with distill(tmp_path, page_scan_max=2) as client:
        await ready(client)
        everything = await listed(client)
        assert len(set(everything)) == len(everything) == 8
        for asked, expected in CASES:
            assert sorted(await listed(client, limit=1, **asked)) == sorted(expected), asked


async def test_it_works_before_the_first_score(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        assert await listed(client, role="welder") == []
        await send(client, stories())
        await done(client, stage="materialize")
        assert await listed(client, role="welder") == ["welding"]
        assert await listed(client, category="accepted") == []


async def test_a_later_score_is_seen(tmp_path: Path) -> None:
    async with distill(tmp_path) as client:
        await ready(client)
        await send(client, [run("more", verdict=verdict("rejected", "fill.underage"))])
        await done(client, stage="materialize")
        await done(client, stage="score")
        assert set(await listed(client, code="fill.underage")) == {"JO-1-1", "more"}


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"since": "yesterday"}, "since"),
        ({"category": "fine"}, "category"),
        ({"q": "a b c d e f g h i"}, "q"),
        ({"episode_id": ""}, "episode_id"),
        ({"cursor": "x"}, "cursor"),
    ],
)
async def test_questions_that_make_no_sense(tmp_path: Path, asked: dict[str, str], param: str) -> None:
    async with distill(tmp_path) as client:
        response = await client.get("/v1/distill/evidence", params=asked)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
