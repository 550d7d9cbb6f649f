"""The page about validators names every code, so that none is added, renamed or dropped in silence."""

import re
from pathlib import Path

from validators.engine.codes import CODES

PAGE = Path(__file__).parents[3] / "docs" / "validators.md"


def test_the_page_lists_exactly_the_codes_with_their_meanings() -> None:
    rows = dict(re.findall(r"^\| `([a-z]+\.[a-z_]+)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE))
    assert rows == CODES
