"""The report on a comparison in a real browser: without a network, and without a word on its console."""

import json
import platform
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distill.engine.compare import compare, planned
from distill.engine.progress import Progress
from schemas.distill import JobRequest
from tests.second_runtime import require_node, run_node
from tests.unit.distill.compare.arms import FAILED, PASSED, write

HOSTILE = "</pre><script>console.error('taken over')</script><img src='http://127.0.0.1:9/x'>\nneedle"

LOOK = """
(async () => {
  const tasks = () => [...document.querySelectorAll("details")].filter((task) => !task.hidden).length;
  const before = tasks(), box = document.getElementById("filter");
  document.querySelector("details").open = true;
  const texts = [...document.querySelectorAll("details[open] pre")].map((text) => text.innerText);
  const find = (words) => { box.value = words; box.dispatchEvent(new Event("input")); return tasks(); };
  return {
    title: document.title, before, texts,
    found: find("NEEDLE\\nnumber 7,"), nothing: find("no such words"), all: find(""),
    wide: document.documentElement.scrollWidth > innerWidth,
    plots: [...document.querySelectorAll("svg")].map((plot) => plot.getBoundingClientRect().width > 100),
    colour: getComputedStyle(document.querySelector(".better, .worse, .quiet")).color,
  };
})()
"""


@pytest.fixture(scope="module")
def browser_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the browser unpacks itself, once; hundreds of megabytes that nobody wants to keep."""
    folder = tmp_path_factory.mktemp("browser")
    yield folder
    shutil.rmtree(folder)


def look(page: Path, folder: Path, expression: str) -> dict[str, Any]:
    """What a browser made of a page. Skips where there is none for this machine."""
    require_node()
    packed = sys.platform == "linux" and platform.machine() == "x86_64"
    own = "" if packed else shutil.which("chromium") or shutil.which("google-chrome")
    if own is None:
        pytest.skip("the pinned Chromium is for Linux on x86-64, and there is no other here")
    seen: dict[str, Any] = json.loads(run_node("browser.mjs", page, folder, expression, CHROMIUM=own))
    return seen


def report(data: Path) -> Path:
    chance = random.Random(1)
    for name, rate in (("old", 0.5), ("new", 0.8)):
        write(data, name, [PASSED if chance.random() < rate else FAILED for _ in range(80)], text=HOSTILE)
    request = JobRequest(stage="compare", baseline="old", current="new", gate="not worse at 95 %")
    made = compare(data, planned(request), Progress())
    return data / "comparisons" / made.comparison.comparison_id / "report.html"


def test_the_report_opens_in_a_browser(tmp_path: Path, browser_folder: Path) -> None:
    page = report(tmp_path)
    seen = look(page, browser_folder, LOOK)
    assert seen["console"] == []
    assert seen["errors"] == []
    assert seen["requests"] == [page.as_uri()]
    value = seen["value"]
    assert value["title"] == "new against old"
    assert value["before"] == value["all"] > 20
    assert value["found"] <= 1
    assert value["nothing"] == 0
    assert all("<script>" in text and "needle" in text for text in value["texts"])
    assert len(value["texts"]) == 2
    assert value["plots"] == [True, True, True]
    assert not value["wide"]
    assert value["colour"] != "rgb(0, 0, 0)"


def test_the_browser_tells_of_what_it_must_not_find(tmp_path: Path, browser_folder: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        "<!doctype html><p>text<img src='http://127.0.0.1:9/x'><script>console.log('said'); gone()</script>"
    )
    seen = look(page, browser_folder, "document.body.innerText")
    assert seen["value"] == "text"
    assert seen["console"] == ["said"]
    assert any("gone is not defined" in error for error in seen["errors"])
    assert "http://127.0.0.1:9/x" in seen["requests"]
