"""Against chromadb's own server, on the same words and queries, in turn.

`CHROMA_PYTHON` names a Python that has chromadb; it is no part of the project.
"""

import os
from pathlib import Path

import pytest

from tests.bench.load import Load, Outcome
from tests.bench.vectord.chroma import Chroma
from tests.bench.vectord.glove import glove
from tests.bench.vectord.house import house, show
from tests.bench.wrk import offered

pytestmark = [pytest.mark.bench, pytest.mark.enable_socket]

WORDS = 100_000
QUERIES = 500
ROUNDS = 3
CONNECTIONS = 16


def test_three_times_the_searches_at_more_recall(tmp_path: Path) -> None:
    python = os.environ.get("CHROMA_PYTHON")
    if not python:
        pytest.skip("CHROMA_PYTHON names no Python that has chromadb")
    words = glove(WORDS, QUERIES)
    bodies = words.bodies()
    with Chroma.running(python, tmp_path / "chroma") as chroma, house(tmp_path / "ours") as ours:
        chroma_s = chroma.write(words.base)
        theirs = chroma.bodies(words.queries)
        ours.call("PUT", "words", {"dimension": 50, "hybrid": False})
        ours_s = ours.write("words", words.batches())
        built_s = ours.wait_for_index("words")
        target = {"queries": 300, "sweep": {"ef": [96, 128, 160, 192, 256]}, "target_recall": 0.99}
        chosen = ours.call("POST", "words/benchmark", {**target, "apply": True})["best"]
        recalls = {
            "chroma": words.recall(chroma.ids(theirs)),
            "ours": words.recall(ours.ids("words", bodies)),
        }
        loads = {
            "chroma": Load(chroma.query_url, theirs, connections=CONNECTIONS, seconds=4.0),
            "ours": Load(ours.search_url("words"), bodies, ours.headers, CONNECTIONS, 4.0),
        }
        rounds: dict[str, list[Outcome]] = {"chroma": [], "ours": []}
        for _ in range(ROUNDS):
            for name, load in loads.items():
                rounds[name].append(offered(load, tmp_path))
    medians = {name: Outcome.median(outcomes) for name, outcomes in rounds.items()}
    show(
        recall=recalls,
        chosen_ef=chosen and chosen["ef"],
        searches={name: str(outcome) for name, outcome in medians.items()},
        points_per_s={"chroma": round(WORDS / chroma_s), "ours": round(WORDS / ours_s)},
        index_s=round(built_s, 1),
    )
    assert recalls["ours"] >= 0.99
    assert medians["ours"].rate >= 3 * medians["chroma"].rate
