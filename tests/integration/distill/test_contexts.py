"""Earlier work in a real vectord: found for every task, and never of the task's own group.

The evidence is families of copied, renamed, re-dated and step by step reworded work. The middle of each
family comes in after the index was made, so that half of the questions meet an index that is behind.
`CONTEXT_TASKS` says for how many tasks `make chaos` asks (10,000).
"""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from distill.app import create_app
from distill.engine.contexts import Contexts, Groups
from distill.engine.library import Library
from distill.engine.pool import Pool
from distill.engine.progress import Progress
from services.clients import VectordClient
from services.http import PeerClient
from services.testing import client_for
from tests.processes import running
from tests.unit.distill.builders import Json, done, evidence, send, settings_for
from tests.unit.distill.contexts.families import families, family_of

pytestmark = pytest.mark.enable_socket

TASKS: Final = int(os.environ.get("CONTEXT_TASKS", "10000"))
TASKS_IN_CI: Final = 96
IN_A_FAMILY: Final = 8
BRIDGE: Final = 5
"""The copy that joins the two halves of a family."""
K: Final = 5
AT_ONCE: Final = 8
SENT_AT_ONCE: Final = 2000


@pytest.fixture(scope="module")
def vectord_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("vectord")
    with running("tests.stubs.words", folder) as words:
        env = {"VECTORD_EMBEDD_URL": words.url, "VECTORD_CANARY_PROBES_MAX": "0", "VECTORD_RECALL_SHARE": "0"}
        with running("vectord", folder, env=env) as vectord:
            yield vectord.url


@dataclass
class Met:
    """What the questions of one round came to."""

    asked: int = 0
    own: int = 0
    full: int = 0
    caught: int = 0


def fill(data: Path, url: str, collection: str, records: list[Json]) -> tuple[list[Json], Met, Met]:
    """Index all but the bridges; ask; bring the bridges in and ask again, before and after the index."""
    bridges = [one for one in records if one["task"]["key"].endswith(f"-{BRIDGE}")]
    others = [one for one in records if one not in bridges]

    async def story() -> tuple[list[Json], Met, Met]:
        app = create_app(settings_for(data, vectord_url=url))
        async with client_for(app) as client:
            for start in range(0, len(others), SENT_AT_ONCE):
                await send(client, others[start : start + SENT_AT_ONCE])
            for stage in ("materialize", "score"):
                await done(client, stage=stage)
            await done(client, stage="index", collection=collection, embed_model="words")
            await send(client, bridges)
            for stage in ("materialize", "score"):
                await done(client, stage=stage)
            work = evidence(data)
            behind = await met(data, url, collection, work[::2])
            job = await done(client, stage="index", collection=collection, embed_model="words")
            assert job["counts"]["in"] == len(work)
            fresh = await met(data, url, collection, work[1::2])
            return work, behind, fresh

    return asyncio.run(story())


async def met(data: Path, url: str, collection: str, tasks: list[Json]) -> Met:
    groups = await asyncio.to_thread(Groups.of_library, data, Pool(1), Progress())
    library = Library(data / "distill")
    families_of = {one["evidence_id"]: family_of(one) for one in evidence(data)}
    result = Met()
    async with VectordClient(PeerClient("vectord", url)) as vectord:
        contexts = Contexts(library, groups, vectord, collection=collection)

        async def ask(task: Json) -> None:
            item = library.item(task["evidence_id"])
            assert item is not None
            passages = await contexts.retrieve(item, K)
            found = [families_of[one.evidence_id] for one in passages]
            result.asked += 1
            result.own += family_of(task) in found
            result.full += len(found) == K

        for start in range(0, len(tasks), AT_ONCE):
            await asyncio.gather(*map(ask, tasks[start : start + AT_ONCE]))
        result.caught = contexts.caught.total()
    return result


def check(data: Path, url: str, collection: str, tasks: int) -> None:
    work, behind, fresh = fill(data, url, collection, families(tasks // IN_A_FAMILY))
    assert behind.asked + fresh.asked == len(work) == tasks
    assert (behind.own, fresh.own) == (0, 0)
    assert behind.caught > 0
    assert fresh.caught == 0
    assert behind.full >= 0.9 * behind.asked
    assert fresh.full == fresh.asked
    print(f"{tasks} tasks: 0 of their own group; {behind.caught} held back while the index was behind")


def test_nothing_of_the_own_group_is_found(tmp_path: Path, vectord_url: str) -> None:
    check(tmp_path, vectord_url, "small", TASKS_IN_CI)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_nothing_of_the_own_group_is_found_at_full_size(tmp_path: Path, vectord_url: str) -> None:
    check(tmp_path, vectord_url, "full", TASKS)
