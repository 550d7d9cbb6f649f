"""The order of the queue, and that paging through it neither misses nor repeats while decisions come in."""

import random

from hypothesis import given
from hypothesis import strategies as st

from distill.engine.review.decisions import Decided
from distill.engine.review.index import Pattern, Reviewed, ShardReviews, Waiting
from distill.engine.review.queue import Cursor, Order, Queue

UNDERAGE = Pattern(("fill.underage",), "fill", "welder")
BLOCKED = Pattern(("fill.client_blocked",), "fill", "welder")
LINK = Pattern(("content.url_not_allowed",), "email", "")
PATTERNS = (UNDERAGE, BLOCKED, LINK)


def name(number: int) -> str:
    return f"{number:064x}"


def shard(waiting: list[Waiting], reviewed: dict[Pattern, int] | None = None) -> ShardReviews:
    made = ShardReviews()
    made.waiting = waiting
    made.reviewed = [
        Reviewed(name(10_000 + place * 100 + n), pattern, (Decided("r", "t", "ann", "accept"),))
        for place, (pattern, count) in enumerate((reviewed or {}).items())
        for n in range(count)
    ]
    return made


def queue(waiting: list[Waiting], reviewed: dict[Pattern, int] | None = None, queue_max: int = 1000) -> Queue:
    return Queue([shard(waiting, reviewed)], queue_max=queue_max)


def listed(of: Queue, order: Order = "value", *, without: list[str] | None = None) -> list[str]:
    places, more = of.page(of.open(without or [], None), order, 10_000, None)
    assert not more
    return [of.id_at(place) for place in places]


def test_people_who_disagree_come_before_everything_else() -> None:
    waiting = [Waiting(name(n), UNDERAGE, 0.0) for n in range(5)]
    waiting += [Waiting(name(8), LINK, 1.0), Waiting(name(9), LINK, 0.75)]
    assert listed(queue(waiting))[:2] == [name(8), name(9)]


def test_what_was_rarely_decided_comes_before_what_often_was() -> None:
    waiting = [Waiting(name(1), UNDERAGE, 0.0), Waiting(name(2), BLOCKED, 0.0)]
    assert listed(queue(waiting, {UNDERAGE: 3})) == [name(2), name(1)]


def test_of_sorts_that_are_equally_new_the_frequent_one_comes_first() -> None:
    waiting = [Waiting(name(1), LINK, 0.0), Waiting(name(2), UNDERAGE, 0.0), Waiting(name(3), UNDERAGE, 0.0)]
    assert listed(queue(waiting)) == [name(2), name(1), name(3)]


def test_the_first_of_each_sort_come_before_further_ones_of_the_same() -> None:
    waiting = [Waiting(name(n), PATTERNS[n % 2], 0.0) for n in range(20)]
    assert set(listed(queue(waiting))[:2]) == {name(0), name(1)}


def test_the_parts_of_a_value_say_how_it_was_made() -> None:
    of = queue([Waiting(name(n), UNDERAGE, 0.5) for n in range(4)], {UNDERAGE: 1})
    place = of.place_of(name(1))
    assert place is not None
    value = of.value_at(place)
    assert (value.disagreement, value.alike, value.decided) == (0.5, 4, 1)
    assert (value.novelty, value.frequency) == (0.333333, 0.75)  # one was decided, one comes before it
    assert value.score == 0.5


def test_a_queue_that_is_too_long_says_how_much_it_leaves_out() -> None:
    of = queue([Waiting(name(n), UNDERAGE, 0.0) for n in range(10)], queue_max=4)
    assert listed(of, "id") == [name(n) for n in range(4)]
    assert of.left_out == 6


def test_nothing_waits() -> None:
    of = queue([])
    assert listed(of) == []
    assert of.place_of(name(1)) is None


def test_a_role_is_asked_for_by_its_name() -> None:
    of = queue([Waiting(name(1), UNDERAGE, 0.0), Waiting(name(2), LINK, 0.0)])
    places, _ = of.page(of.open([], "welder"), "id", 10, None)
    assert [of.id_at(place) for place in places] == [name(1)]


pieces = st.lists(
    st.tuples(st.sampled_from(PATTERNS), st.sampled_from([0.0, 0.5, 0.75, 1.0])), min_size=1, max_size=40
)


@given(pieces, st.integers(1, 7), st.sampled_from(["value", "id"]), st.integers(0, 2**32 - 1))
def test_pages_show_everything_once_while_decisions_come_in(
    given_pieces: list[tuple[Pattern, float]], limit: int, order: Order, seed: int
) -> None:
    chance = random.Random(seed)
    of = queue([Waiting(name(n), pattern, points) for n, (pattern, points) in enumerate(given_pieces)])
    everything = listed(of, order)
    decided: list[str] = []
    seen: list[str] = []
    cursor: Cursor | None = None
    more = True
    while more:
        places, more = of.page(of.open(decided, None), order, limit, cursor)
        if not places:
            break
        seen += [of.id_at(place) for place in places]
        cursor = Cursor.read(str(of.cursor_at(places[-1], order)))
        decided += chance.sample(everything, min(2, len(everything)))
    assert len(seen) == len(set(seen))
    assert seen == [one for one in everything if one in set(seen)]
    assert set(everything) - set(decided) <= set(seen)
