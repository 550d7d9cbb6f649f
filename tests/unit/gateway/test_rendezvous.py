"""Texts have homes: shared out over replicas, moved when one is lost, put together in order."""

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.backends import Part, ReplicaLost
from gateway.engine import Rendezvous, Vectors, Wanted
from schemas.errors import ErrorBody
from schemas.hop import Answered, Call, Refused
from services.errors import InvalidRequest, PlatformError, Unavailable

pytestmark = pytest.mark.anyio


class FakeReplica:
    """Answers every call with fragments that name the text; `state` makes it lose or refuse them."""

    def __init__(self, url: str, *, digest: str = "d") -> None:
        self.url = url
        self.state = "up"
        self.digest = digest
        self.texts: list[str] = []
        self.cancelled = 0
        self.in_flight = 0

    def ask(
        self, make: Callable[[int], Call], done: Callable[[Part | ReplicaLost, float], None]
    ) -> Callable[[], None]:
        call = make(1)
        loop = asyncio.get_running_loop()
        if self.state != "silent":
            loop.call_soon(done, self._outcome(call), 0.0)
        return self._cancel

    def _cancel(self) -> None:
        self.cancelled += 1

    async def ping(self) -> None:
        return

    def lose(self) -> None:
        return

    async def close(self) -> None:
        return

    def _outcome(self, call: Call) -> Part | ReplicaLost:
        if self.state == "lost":
            return ReplicaLost("gone")
        bad = [index for index, text in enumerate(call.texts) if text == "bad"]
        if bad:
            param = f"input.{bad[0]}"
            message = f"`{param}`: too long"
            error = ErrorBody(
                message=message, type="invalid_request_error", code="c", param=param, request_id="r"
            )
            return Refused(call.id, 400, error, None)
        self.texts += call.texts
        fragments = [f'"{text}"'.encode() for text in call.texts]
        return Answered(call.id, self.digest, 0, len(fragments), [1] * len(fragments), 0, 0, fragments)


def wanted(texts: list[str]) -> Wanted:
    return Wanted("r", "00-a-b-01", "m", texts, None, False, None, "float")


async def embed(rendezvous: Rendezvous, texts: list[str]) -> Vectors:
    """The outcome of `start`, as its caller gets it."""
    outcome: asyncio.Future[Vectors | PlatformError] = asyncio.get_running_loop().create_future()
    rendezvous.start(wanted(texts), outcome.set_result)
    result = await asyncio.wait_for(outcome, 5)
    if isinstance(result, PlatformError):
        raise result
    return result


@given(
    st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=20), st.integers(1, 4), st.integers(0, 3)
)
@example(["\x9b", "00"], 4, 3)
@settings(max_examples=60, deadline=None)
def test_answers_are_in_order_whoever_gave_them_and_whoever_was_lost(
    texts: list[str], count: int, lost: int
) -> None:
    async def story() -> None:
        replicas = [FakeReplica(f"http://r{number}:1") for number in range(count)]
        for replica in replicas[: min(lost, count - 1)]:
            replica.state = "lost"
        rendezvous = Rendezvous(replicas, ejection_s=60)
        texts_ok = [text for text in texts if text != "bad"] or ["x"]
        vectors = await embed(rendezvous, texts_ok)
        assert list(vectors.fragments) == [f'"{text}"'.encode() for text in texts_ok]
        assert (vectors.misses, vectors.tokens) == (len(texts_ok), len(texts_ok))

    asyncio.run(story())


async def test_a_text_has_one_home_and_moves_only_when_that_is_lost() -> None:
    replicas = [FakeReplica(f"http://r{number}:1") for number in range(3)]
    rendezvous = Rendezvous(replicas, ejection_s=60)
    texts = [f"text {number}" for number in range(300)]
    for text in texts * 2:
        await embed(rendezvous, [text])
    homes = {text: [r.url for r in replicas if text in r.texts] for text in texts}
    assert all(len(home) == 1 for home in homes.values())
    shares = Counter(home[0] for home in homes.values())
    assert all(60 <= shares[replica.url] <= 140 for replica in replicas), shares

    replicas[0].state = "lost"
    for replica in replicas:
        replica.texts.clear()
    for text in texts:
        await embed(rendezvous, [text])
    for text in texts:
        (now,) = [r.url for r in replicas if text in r.texts]
        assert now == homes[text][0] or homes[text][0] == replicas[0].url


async def test_a_refusal_names_the_text_as_the_caller_numbers_it() -> None:
    replicas = [FakeReplica(f"http://r{number}:1") for number in range(3)]
    rendezvous = Rendezvous(replicas, ejection_s=60)
    texts = [f"t{number}" for number in range(20)]
    texts[13] = "bad"
    with pytest.raises(InvalidRequest, match=r"`input.13`: too long") as caught:
        await embed(rendezvous, texts)
    assert caught.value.param == "input.13"


async def test_with_every_replica_lost_the_answer_is_503() -> None:
    replicas = [FakeReplica("http://r0:1"), FakeReplica("http://r1:1")]
    rendezvous = Rendezvous(replicas, ejection_s=60)
    for replica in replicas:
        replica.state = "lost"
    with pytest.raises(Unavailable) as caught:
        await embed(rendezvous, ["a"])
    assert caught.value.code == "embedd_down"
    replicas[1].state = "up"
    assert list((await embed(rendezvous, ["a"])).fragments) == [b'"a"']


async def test_replicas_with_different_models_are_not_mixed() -> None:
    replicas = [FakeReplica("http://r0:1"), FakeReplica("http://r1:1", digest="other")]
    with pytest.raises(Unavailable, match="different models"):
        await embed(Rendezvous(replicas, ejection_s=60), [f"t{number}" for number in range(20)])


async def test_giving_up_reaches_the_replica() -> None:
    replica = FakeReplica("http://r0:1")
    replica.state = "silent"
    rendezvous = Rendezvous([replica], ejection_s=60)
    seen: list[object] = []
    rendezvous.start(wanted(["a"]), seen.append)()
    await asyncio.sleep(0)
    assert (replica.cancelled, seen) == (1, [])


async def test_without_a_replica_the_answer_is_503() -> None:
    with pytest.raises(Unavailable, match="no replica"):
        await embed(Rendezvous([], ejection_s=1), ["a"])
