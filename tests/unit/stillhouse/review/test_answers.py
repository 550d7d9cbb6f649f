"""Findings are marked where they are, and nothing in an answer reaches the terminal as a command."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue
from rich.text import Text

from schemas.verdicts import Finding
from stillhouse.review.answers import STYLES, artifact_of, marked
from stillhouse.review.visible import shortened, visible


def finding(path: str, span: tuple[int, int] | None = None) -> Finding:
    return Finding(code="x", severity="error", path=path, span=span, message="m")


def red(text: Text) -> list[str]:
    return [text.plain[span.start : span.end] for span in text.spans if span.style == STYLES["error"]]


@pytest.mark.parametrize(
    ("artifact", "found", "shown"),
    [
        ({"body": "so young"}, finding("/body", (3, 8)), ["young"]),
        ({"body": "so young"}, finding("/body"), ["so young"]),
        ({"fills": [{"worker_id": 7}, {"worker_id": 8}]}, finding("/fills/1/worker_id"), ["8"]),
        ({"a/b": {"~": None}}, finding("/a~1b/~0"), ["null"]),
        ({"to": [], "cc": [1]}, finding("/to"), ["[]"]),
        ({"body": 'a "b" c'}, finding("/body", (2, 5)), ['\\"b\\"']),
        ("plain words", finding("", (6, 11)), ["words"]),
        ("plain words", finding("", (6, 99)), ["words"]),
        ({"body": "x"}, finding(""), []),
        ({"body": "x"}, finding("/subject"), []),
    ],
)
def test_a_finding_is_marked_where_it_is(artifact: JsonValue, found: Finding, shown: list[str]) -> None:
    assert red(marked(artifact, [found])) == shown


texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(texts, values, max_size=4))
def test_what_is_shown_is_the_artifact(value: dict[str, JsonValue]) -> None:
    assert json.loads(marked(value, [finding("/a")]).plain) == value


def test_a_value_that_is_nested_too_deep_is_shown_as_it_was_written() -> None:
    content = '{"a":' * 200 + "1" + "}" * 200
    assert artifact_of(content) == content


def test_the_artifact_is_found_in_what_surrounds_it() -> None:
    assert artifact_of('Sure!\n```json\n{"body": "x"}\n```') == {"body": "x"}


@given(st.text())
def test_no_text_moves_the_cursor_or_turns_the_reading_order(text: str) -> None:
    shown = visible(text)
    assert len(shown) == len(text)
    assert not set(shown) & {"\x1b", "\x07", "\r", "\x7f", "\x9b", "\u202e", "\u2066"}
    assert visible(shown) == shown


def test_a_long_text_says_how_much_is_missing() -> None:
    assert shortened("x" * 12, 12) == "x" * 12
    assert shortened("x" * 2000, 10) == "xxxxxxxxxx … 1,990 more characters (v shows them)"
