"""Near duplicates of near duplicates: no link between them is lost, whichever texts are compared first."""

import random
from pathlib import Path

import numpy as np
import pytest

from distill.engine.exports import near
from distill.engine.exports.grouping import near_clusters
from distill.engine.exports.rowing import Traits, part
from distill.engine.exports.splits import Components
from distill.engine.pool import Pool

WORDS, CHANGED = 90, 3


def words(chance: random.Random, count: int) -> list[str]:
    return ["".join(chance.choices("abcdefghijklmnopqrstuvw", k=7)) for _ in range(count)]


def cloud(chance: random.Random, count: int) -> list[str]:
    """Texts each of which is a rewording of one before, chosen anew each time."""
    texts = [words(chance, WORDS)]
    while len(texts) < count:
        text = list(chance.choice(texts))
        for place in chance.sample(range(WORDS), CHANGED):
            text[place] = words(chance, 1)[0]
        texts.append(text)
    return [" ".join(text) for text in texts]


def clustered(work: Path, texts: list[str]) -> int:
    with part(work, 0, "forms").open("wb") as forms:
        traits = Traits(forms)
        for number, text in enumerate(texts):
            traits.add({"evidence_id": f"{number:064x}", "ts": None}, b"", text)
    traits.save(work, 0)
    return len(np.unique(near_clusters(work, 1, Pool(1))))


def exactly(texts: list[str]) -> int:
    """The clusters by comparing each with each."""
    shingles = [near.shingles(near.masked(text)) for text in texts]
    pairs = [
        (one, other)
        for one in range(len(texts))
        for other in range(one)
        if near.alike(shingles[one], shingles[other])
    ]
    clusters = Components(len(texts))
    clusters.join(np.array([one for one, _ in pairs]), np.array([other for _, other in pairs]))
    return len(np.unique(clusters.labels))


@pytest.mark.parametrize("seed", range(4))
def test_clusters_of_rewordings_are_those_of_comparing_each_with_each(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    texts = [*cloud(chance, 80), *cloud(chance, 40), *cloud(chance, 8)]
    chance.shuffle(texts)
    assert clustered(tmp_path, texts) == exactly(texts) == 3
