import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.engine.exports import near

WORDS = ["".join(random.Random(n).choices("abcdefghijklmnopqrstuvwxyz", k=7)) for n in range(600)]


def text_of(seed: int, words: int = 120) -> list[str]:
    return random.Random(seed).choices(WORDS, k=words)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("fill order ORD-1 at $18.50", "fill order ORD-22 at $7"),
        ("please ask Maria Lopez in Chicago today", "please ask Bo in New York today"),
        ("starts 2026-11-02T06:00:00Z, twice", "starts 2027-01-30T14:30:00Z, twice"),
        ("Hello  world.\nAgain", "hello world again"),
        ('{"worker_id": "W-1", "name": "Ann Lee"}', '{"worker_id": "W-2", "name": "Bo"}'),
        ("caf\u00e9 \uff41\uff42", "cafe\u0301 ab"),
    ],
)
def test_slots_of_a_template_are_one(one: str, other: str) -> None:
    assert near.masked(one) == near.masked(other)


def test_other_words_are_another_form() -> None:
    assert near.masked("accept the shift") != near.masked("decline the shift")
    assert near.masked("") == near.masked(" \n--") == b""


def exact(one: bytes, other: bytes) -> float:
    def grams(data: bytes) -> set[bytes]:
        data = data.ljust(8)
        return {data[at : at + 8] for at in range(len(data) - 7)}

    return len(grams(one) & grams(other)) / len(grams(one) | grams(other))


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_the_index_is_that_of_the_sets_of_shingles(one: str, other: str) -> None:
    a, b = near.masked(one), near.masked(other)
    found = near.jaccard(near.shingles(a), near.shingles(b))
    assert found == pytest.approx(exact(a, b))
    assert near.alike(near.shingles(a), near.shingles(b)) == (found >= near.JACCARD_MIN)


def signature(text: str) -> near.Hashes:
    return near.signature(near.shingles(near.masked(text)))


def meet(one: str, other: str) -> bool:
    return bool(np.any(near.bands(signature(one)) == near.bands(signature(other))))


def sketches_agree(one: str, other: str) -> bool:
    return bool(near.may_be_alike(near.sketch(signature(one))[None], near.sketch(signature(other))[None])[0])


def test_texts_that_are_alike_meet_in_a_band_and_others_do_not() -> None:
    alike = far = mistaken = 0
    for seed in range(100):
        words = text_of(seed)
        changed = [*words[:50], WORDS[seed], *words[51:90], WORDS[seed + 1], *words[91:]]
        index = exact(near.masked(" ".join(words)), near.masked(" ".join(changed)))
        assert index > near.JACCARD_MIN
        alike += meet(" ".join(words), " ".join(changed))
        assert sketches_agree(" ".join(words), " ".join(changed))
        far += meet(" ".join(words), " ".join(text_of(seed + 1000)))
        mistaken += sketches_agree(" ".join(words), " ".join(text_of(seed + 1000)))
    assert alike == 100
    assert far <= 2
    assert mistaken <= 2


@pytest.mark.parametrize("words", [25, 60, 120])
def test_sketches_of_texts_that_are_barely_alike_agree_too(words: int) -> None:
    agree = count = 0
    for seed in range(300):
        text = text_of(seed, words)
        changed = [word if place % 20 != 7 else "changed" for place, word in enumerate(text)]
        one, other = near.masked(" ".join(text)), near.masked(" ".join(changed))
        if near.alike(near.shingles(one), near.shingles(other)):
            count += 1
            agree += sketches_agree(" ".join(text), " ".join(changed))
    assert len(one) >= near.SKETCHED_BYTES_MIN
    assert count > 100
    assert agree == count


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_short_texts_have_bands_that_depend_on_the_form_alone(text: str) -> None:
    form = near.masked(text)
    keys = near.bands(near.signature(near.shingles(form)))
    assert keys.shape == (near.BANDS,)
    assert np.array_equal(keys, near.bands(near.signature(near.shingles(bytes(form)))))
