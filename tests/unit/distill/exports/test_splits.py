from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.engine.exports.splits import (
    HOLDOUT,
    TOUCHES_HOLDOUT,
    TRAIN,
    VALIDATION,
    Components,
    Grouped,
    HoldoutIds,
    assign,
    grouped,
)
from distill.engine.keyed import are_in
from schemas.distill import SplitShares

SHARES = SplitShares()


def groups_of(count: int, size: int = 1) -> Grouped:
    labels = np.repeat(np.arange(count) * size, size)
    keys = np.random.Generator(np.random.PCG64(7)).integers(1, 2**62, count)
    return Grouped(labels, np.repeat(keys, size))


def split(groups: Grouped, *, held: list[int] | None = None, **options: object) -> list[int]:
    count = len(groups.labels)
    marks = np.zeros(count, dtype=np.bool_)
    marks[held or []] = True
    ts = options.pop("ts", np.zeros(count, dtype=np.int64))
    options = {"salt": "", "holdout_days": None, **options}
    return list(assign(groups, ts, marks, SHARES, **options))  # type: ignore[arg-type]


@settings(max_examples=60)
@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=60))
def test_components_are_those_of_the_graph(count: int, edges: list[tuple[int, int]]) -> None:
    edges = [(a % count, b % count) for a, b in edges]
    components = Components(count)
    components.join(np.array([a for a, _ in edges], int), np.array([b for _, b in edges], int))
    sets = [{node} for node in range(count)]
    for a, b in edges:
        if sets[a] is not sets[b]:
            sets[a] |= sets[b]
            for node in sets[b]:
                sets[node] = sets[a]
    assert list(components.labels) == [min(sets[node]) for node in range(count)]


@settings(max_examples=40)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_equal_keys_are_joined_and_zero_is_none(keys: list[int]) -> None:
    components = Components(len(keys))
    components.join_equal(np.array(keys, dtype=np.int64))
    for a, one in enumerate(keys):
        for b, other in enumerate(keys):
            same = a == b or (one == other and one != 0)
            assert (components.labels[a] == components.labels[b]) == same


def test_shares_are_neared_and_groups_stay_whole() -> None:
    groups = groups_of(3000, size=3)
    found = np.array(split(groups)).reshape(3000, 3)
    assert (found == found[:, :1]).all()
    sizes = np.bincount(found[:, 0], minlength=3) / 3000
    assert sizes[TRAIN] == pytest.approx(0.8, abs=0.03)
    assert sizes[VALIDATION] == pytest.approx(0.1, abs=0.03)
    assert sizes[HOLDOUT] == pytest.approx(0.1, abs=0.03)
    assert split(groups) != split(groups, salt="other")


def test_a_split_does_not_depend_on_what_else_there_is() -> None:
    groups = groups_of(500)
    part = Grouped(groups.labels[:200], groups.keys[:200])
    assert split(groups)[:200] == split(part)


def test_the_key_of_a_group_is_that_of_its_oldest_row() -> None:
    labels = np.array([0, 0, 2, 0])
    ids = np.array([5, 6, 7, 4], dtype=np.uint64)
    keys = np.array([11, 12, 13, 14])
    assert list(grouped(labels, np.array([3, 1, 9, 1]), ids, keys).keys) == [14, 14, 13, 14]
    assert list(grouped(labels, np.array([3, 1, 9, 2]), ids, keys).keys) == [12, 12, 13, 12]


def test_what_was_held_out_stays_so_and_its_group_is_left_out_elsewhere() -> None:
    groups = groups_of(200, size=2)
    before = split(groups)
    train = before.index(TRAIN)
    after = split(groups, held=[train])
    assert after[train] == HOLDOUT
    assert after[train + 1] == TOUCHES_HOLDOUT
    assert [one for one in before if one == HOLDOUT] == [one for one in after if one == HOLDOUT][1:]


def test_a_time_holdout_takes_the_last_days_of_the_data() -> None:
    day = 24 * 3600 * 1_000_000
    groups = groups_of(100)
    ts = np.arange(100) * day + 1
    found = split(groups, ts=ts, holdout_days=7)
    assert all(one == HOLDOUT for one in found[-7:])
    assert found[:-7] == split(groups)[:-7]


def test_something_is_left_to_train_on() -> None:
    for salt in range(60):
        assert TRAIN in split(groups_of(1, size=4), salt=str(salt))
        assert TRAIN in split(groups_of(2), salt=str(salt))


def test_a_template_is_no_holdout() -> None:
    groups = groups_of(60)
    large = Grouped(
        np.concatenate([groups.labels, np.full(5000, 60)]), np.concatenate([groups.keys, np.full(5000, 99)])
    )
    for salt in range(40):
        assert set(split(large, salt=str(salt))[60:]) == {TRAIN}


def test_holdout_ids_are_only_added_to(tmp_path: Path) -> None:
    ids = [f"{number:064x}" for number in (7 << 192, 3 << 192)]
    holdout = HoldoutIds(tmp_path, "salt")
    assert len(holdout.prefixes()) == 0
    holdout.add(ids[:1])
    (path,) = tmp_path.iterdir()
    first = path.read_bytes()
    with path.open("ab") as file:
        file.write(b"abc")  # a crash in the middle of a line
    assert list(holdout.prefixes()) == [7]
    holdout.add(ids)
    assert path.read_bytes() == first + ids[1].encode() + b"\n"
    assert list(HoldoutIds(tmp_path, "salt").prefixes()) == [3, 7]
    assert len(HoldoutIds(tmp_path, "other").prefixes()) == 0
    assert list(are_in(np.array([1, 3, 9], dtype=np.uint64), holdout.prefixes())) == [False, True, False]


def test_shares_that_leave_nothing_to_train_on_are_refused() -> None:
    for shares in ({"train": 0.5}, {"train": 0, "validation": 0.5, "holdout": 0.5}):
        with pytest.raises(ValueError, match="train"):
            SplitShares.model_validate(shares)
