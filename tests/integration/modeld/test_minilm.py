"""The installed embedding model against the float32 original, and against itself in a batch."""

import json
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from modeld.backends import Embedder, Vectors, installed_shelf
from tests.integration.modeld.reference import GOLDEN, PAIRS, Reference

COSINE_MIN = 0.998  # measured over the texts of the golden pairs: 0.9990 at worst, 0.9996 on average
DRIFT_MAX = 0.01  # measured: the similarity of a pair moves by 0.0051 at most
TEXTS = [text for pair in PAIRS for text in pair]


@pytest.fixture(scope="module")
def embedder() -> Iterator[Embedder]:
    embedder = installed_shelf(context_tokens=256, slots=1, threads=1).embedders[0].load()
    yield embedder
    embedder.close()


def embed(embedder: Embedder, texts: Sequence[str]) -> Vectors:
    return embedder.embed([embedder.truncate(tokens, 256) for tokens in embedder.tokenize(texts)])


def test_similarities_are_those_of_the_original(embedder: Embedder) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert [(row["left"], row["right"]) for row in golden] == list(PAIRS)
    for row in golden:
        left, right = embed(embedder, [row["left"], row["right"]])
        assert float(left @ right) == pytest.approx(row["cosine"], abs=DRIFT_MAX), row


def test_vectors_are_those_of_the_original_but_for_rounding(embedder: Embedder) -> None:
    cosines = np.sum(embed(embedder, TEXTS) * Reference().embed(TEXTS), axis=1)
    assert cosines.min() >= COSINE_MIN
    assert cosines.mean() >= 0.999


def test_a_text_has_the_same_vector_alone_and_in_any_batch(embedder: Embedder) -> None:
    together = embed(embedder, TEXTS)
    alone = np.concatenate([embed(embedder, [text]) for text in TEXTS])
    assert np.sum(together * alone, axis=1).min() >= 0.999999
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)


def test_truncation_keeps_the_start_and_the_frame(embedder: Embedder) -> None:
    [tokens] = embedder.tokenize(["welder " * 400])
    cut = embedder.truncate(tokens, 256)
    assert (len(cut), cut[0], cut[-1]) == (256, tokens[0], tokens[-1])
    assert embedder.truncate(cut, 256) == cut
