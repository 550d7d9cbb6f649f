"""The law of the cache: whatever is cached, shared, left or failing, an answer equals the uncached one."""

import asyncio
import random
import re
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from embedd.backends import Computed, FakeBackend, FakeSharedCache
from embedd.engine import Embedded
from embedd.engine.cache import ENTRY_OVERHEAD_BYTES
from embedd.engine.flights import apportioned
from services.errors import PlatformError
from tests.unit.embedd.engines import asked, engine_on, vectors

GOOD = [*"abcdefgh", "é", "e\u0301"]
BAD = ["poison 1", "poison 2", "crash 1"]
CALLS = st.lists(st.lists(st.sampled_from(GOOD + BAD), min_size=1, max_size=8), min_size=1, max_size=6)


class Hesitant(FakeBackend):
    """Lets others run before it answers, for a while that differs from call to call."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)

    async def embed(self, model: str, texts: Sequence[str], *, truncate: bool) -> Computed:
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)
        return await super().embed(model, texts, truncate=truncate)


def composed(text: str) -> str:
    return "é" if text == "e\u0301" else text


def is_right(backend: FakeBackend, texts: list[str], outcome: Embedded | BaseException) -> None:
    """What the caller was told is what a backend without cache and neighbours would have told."""
    failing = [index for index, text in enumerate(texts) if text in BAD]
    if failing:
        assert isinstance(outcome, PlatformError)
        assert [int(place) for place in re.findall(r"input\.(\d+)", outcome.message)] == failing
        assert outcome.param == f"input.{failing[0]}"
        assert outcome.status == (400 if any("poison" in text for text in texts) else 502)
        return
    assert isinstance(outcome, Embedded), outcome
    np.testing.assert_array_equal(vectors(outcome), [backend.vector(composed(text)) for text in texts])
    assert outcome.prompt_tokens == len(texts)
    assert outcome.hits + outcome.misses == len(texts)


@given(
    calls=CALLS,
    cached=st.lists(st.sampled_from(GOOD), max_size=6),
    leaving=st.sets(st.integers(0, 5)),
    batch_items_max=st.integers(1, 5),
    entries=st.integers(0, 6),
    shared=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=150, deadline=None)
def test_an_answer_equals_the_uncached_one(
    *,
    calls: list[list[str]],
    cached: list[str],
    leaving: set[int],
    batch_items_max: int,
    entries: int,
    shared: bool,
    seed: int,
) -> None:
    async def story() -> None:
        backends = [Hesitant(seed), Hesitant(seed + 1)]
        room = entries * (8 * 4 + 8 + ENTRY_OVERHEAD_BYTES)
        async with engine_on(
            *backends,
            cache_bytes_max=room,
            shared=FakeSharedCache() if shared else None,
            limits={"batch_items_max": batch_items_max},
        ) as built:
            if cached:
                await built.embed(*cached)
            callers = [asyncio.ensure_future(built.embed(*texts)) for texts in calls]
            await asyncio.sleep(0)
            for number, caller in enumerate(callers):
                if number in leaving:
                    caller.cancel()
            outcomes = await asyncio.gather(*callers, return_exceptions=True)
            for texts, outcome in zip(calls, outcomes, strict=True):
                if not isinstance(outcome, asyncio.CancelledError):
                    is_right(backends[0], texts, outcome)
            for _ in range(20):  # calls that were ended take a few turns to be over
                await asyncio.sleep(0)
            assert built.idle
            assert built.cache.bytes <= room

    asyncio.run(story())


@given(CALLS, st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_no_text_is_computed_again_while_it_is_cached_or_under_way(
    calls: list[list[str]], batch_items_max: int
) -> None:
    async def story() -> None:
        backend = Hesitant(7)
        async with engine_on(backend, limits={"batch_items_max": batch_items_max}) as built:
            await asyncio.gather(*(built.embed(*texts) for texts in calls), return_exceptions=True)
            alone = [texts[0] for texts in asked(backend.calls) if len(texts) == 1]
            for text in {composed(text) for texts in calls for text in texts if text not in BAD}:
                # more than once only in lists that were refused because of another text
                good = [
                    texts for texts in asked(backend.calls) if text in texts and not set(texts) & set(BAD)
                ]
                assert len(good) == 1
            assert all(alone.count(text) <= len(calls) for text in BAD)

    asyncio.run(story())


@given(st.integers(0, 10_000), st.lists(st.text(min_size=1, max_size=50), min_size=1, max_size=30))
def test_shares_of_tokens_add_up(total: int, texts: list[str]) -> None:
    shares = apportioned(total, texts)
    assert sum(shares) == total
    assert all(share >= 0 for share in shares)
