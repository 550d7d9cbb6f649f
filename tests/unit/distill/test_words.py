"""The index of words against reading every text: it may offer too many rows, and never too few."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.engine import words

ALPHABET = st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Z", "M", "Cc"))
TEXTS = st.lists(st.text(ALPHABET | st.sampled_from("aAßİ éz6_- \x00"), max_size=12), max_size=6)


@given(TEXTS, st.data())
@settings(max_examples=80, deadline=None)
def test_no_row_is_missed(texts: list[str], data: st.DataObject) -> None:
    word = data.draw(st.sampled_from([part for text in texts for part in text.split()] or ["a"]))
    asked = (word[data.draw(st.integers(0, len(word) - 1)) :],)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        words.write(path, texts)
        found = words.rows_with(path, asked)
    having = {row for row, text in enumerate(texts) if words.has_all(text, asked)}
    assert found is None or having <= set(found.tolist())


def test_words_by_their_beginnings_in_any_case(tmp_path: Path) -> None:
    path = tmp_path / "index"
    words.write(path, ["Straße nach Köln", "order JO-0042: 3× welder", "nothing"])
    for asked, rows in (
        (["STRASSE"], [0]),
        (["kö", "nach"], [0]),
        (["jo-0042"], [1]),
        (["weld", "3"], [1]),
        (["elder"], []),
        (["n"], [0, 2]),
    ):
        found = words.rows_with(path, asked)
        assert found is not None
        assert found.tolist() == rows, asked


def test_what_has_no_letters_is_left_to_reading(tmp_path: Path) -> None:
    words.write(tmp_path / "index", ["a – b"])
    assert words.rows_with(tmp_path / "index", ["–"]) is None
    assert words.rows_with(tmp_path / "nothing", ["a"]) is None
    assert words.has_all("a – b", ["–"])


def test_an_index_that_was_half_written_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "index"
    (tmp_path / ".index.tmp").write_bytes(b"half")
    words.write(path, ["a"])
    words.write(path, ["a", "ab"])
    found = words.rows_with(path, ["a"])
    assert found is not None
    assert found.tolist() == [0, 1]
    assert [one.name for one in tmp_path.iterdir()] == ["index"]


def test_an_index_that_is_damaged_is_not_gone_by(tmp_path: Path) -> None:
    path = tmp_path / "index"
    path.write_bytes(b"no database at all, whatever it was before" * 100)
    assert words.rows_with(path, ["a"]) is None


def test_what_cannot_be_written_is_the_disks_failure(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="index of words"):
        words.write(tmp_path / "nowhere" / "index", ["a"])
