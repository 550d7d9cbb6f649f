"""The report as bytes: whole in itself, and closed to the texts in it."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.engine.compare.page import SHOWN_MAX, page
from distill.engine.compare.pairing import paired
from distill.engine.compare.results import TEXT_MAX, read_arm
from distill.engine.compare.verdict import differing, judged
from tests.unit.distill.compare.arms import FAILED, PASSED, TERMS, arm, passing, write

HOSTILE = (
    "</pre></script><script>alert(1)</script><img src=x onerror=alert(1)>\x00\x1b[31m \u202egnp &amp; '\""
)


class Elements(HTMLParser):
    """The elements of a page, and the text of one kind of them."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.seen)


def report(data: Path, text: str = "Dear welder,", failed: int = 30) -> str:
    write(data, "old", passing((failed, FAILED), (20, PASSED)), text=text)
    write(data, "new", passing((failed + 15, PASSED), (5, FAILED)), text=text)
    baseline, current = (read_arm(data / "replays" / name) for name in ("old", "new"))
    pairs = paired(baseline, current, "own", "group")
    return page(judged("c", baseline, current, pairs, TERMS), differing(pairs))


def addresses(elements: Elements) -> Iterator[str]:
    for _, attributes in elements.seen:
        for name in ("src", "href", "action", "srcset", "data", "poster", "background"):
            if name in attributes:
                yield str(attributes[name])


def test_it_needs_nothing_else(tmp_path: Path) -> None:
    content = report(tmp_path)
    elements = Elements(content)
    assert list(addresses(elements)) == []
    assert "http://" not in content
    assert "https://" not in content
    assert "@import" not in content
    assert "url(" not in content
    assert elements.count("svg") == 3
    assert elements.count("details") == 35


def test_no_text_becomes_markup(tmp_path: Path) -> None:
    plain, hostile = Elements(report(tmp_path / "a")), report(tmp_path / "b", HOSTILE)
    assert [tag for tag, _ in Elements(hostile).seen] == [tag for tag, _ in plain.seen]
    assert "alert(1)&lt;/script&gt;" in hostile
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", hostile)
    for _, attributes in Elements(hostile).seen:
        assert not any(name.startswith("on") or name == "style" for name in attributes)


@given(st.text(max_size=40))
@settings(max_examples=15, deadline=None)
def test_whatever_the_text_is_the_page_has_the_same_elements(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as plain, tempfile.TemporaryDirectory() as other:
        tags = {tag for tag, _ in Elements(report(Path(plain), failed=1)).seen}
        assert {tag for tag, _ in Elements(report(Path(other), text, failed=1)).seen} == tags


def test_a_policy_lets_only_its_own_script_and_style_work(tmp_path: Path) -> None:
    elements = Elements(report(tmp_path))
    (policy,) = (
        attributes["content"]
        for tag, attributes in elements.seen
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert elements.count("script") == elements.count("style") == 1


def test_roles_have_a_table_of_their_own() -> None:
    def role(number: int) -> str | None:
        return HOSTILE if number < 10 else None

    baseline = arm("old", passing((30, FAILED)), role=role)
    current = arm("new", passing((10, PASSED), (20, FAILED)), role=role)
    pairs = paired(baseline, current, "own", "group")
    content = page(judged("c", baseline, current, pairs, TERMS), ())
    assert "By job role" in content
    assert "<i>none</i>" in content
    assert "+100.0 (" in content
    assert Elements(content).count("img") == 0
    assert Elements(content).count("script") == 1


def test_much_is_cut_and_said_to_be(tmp_path: Path) -> None:
    content = report(tmp_path, "x" * (TEXT_MAX + 500), failed=SHOWN_MAX + 20)
    assert Elements(content).count("details") == SHOWN_MAX
    assert f"{SHOWN_MAX} of {SHOWN_MAX + 25} are" in content
    assert "characters more" in content
    assert len(content) < SHOWN_MAX * 2 * (TEXT_MAX + 2000)


def test_the_same_comparison_is_the_same_bytes(tmp_path: Path) -> None:
    assert report(tmp_path / "a") == report(tmp_path / "b")


@pytest.mark.parametrize("word", ["better", "Difference", "What changed", "email.body_missing", "/body"])
def test_it_tells_what_matters(tmp_path: Path, word: str) -> None:
    assert word in report(tmp_path)
