"""The pages that are made from the code say what the code says."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.generate import DAEMONS, OPENAPI_FOLDER, ROOT, SETTINGS_PAGE, openapi, settings_page

REGENERATE = "run `make docs` and commit the result"


def test_every_setting_is_documented() -> None:
    assert SETTINGS_PAGE.read_text() == settings_page(), REGENERATE


def test_every_setting_has_a_meaning() -> None:
    assert "| None |" not in settings_page()


@pytest.mark.parametrize("daemon", DAEMONS)
def test_the_api_is_what_was_published(daemon: str, tmp_path: Path) -> None:
    published = (OPENAPI_FOLDER / f"{daemon}.json").read_text()
    assert openapi(daemon, tmp_path) == published, REGENERATE


def test_the_changelog_knows_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert version in headings
    assert headings[0] in (version, "Unreleased")


def test_links_between_our_pages_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests").rglob("*.md")]
    pages = [page for page in pages if "node_modules" not in page.parts]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []
