"""The Dockerfile, read: what it installs, as whom it runs, what gets to the builder."""

import fnmatch
import re

import pytest

from tests.generate import DAEMONS, ROOT
from tests.integration.deploy.dockerfile import Instruction, parse

TEXT = (ROOT / "Dockerfile").read_text()
BUILD, FINAL = parse(TEXT)
IGNORE = [
    line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
]


def test_both_stages_stand_on_one_pinned_base() -> None:
    assert BUILD.base == FINAL.base
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}", FINAL.base)


def test_what_is_installed_is_hashed_and_never_compiled() -> None:
    installs = [step.text for step in BUILD.all("RUN") if "pip --python" in step.text]
    assert len(installs) == 3
    assert all("--require-hashes" in text for text in installs)
    assert all("--only-binary :all:" in text or "models.txt" in text for text in installs)
    assert not re.search(r"apt|apk|curl|wget|gcc|index-url|https?://", TEXT.replace("--from", ""))


def test_nothing_is_installed_in_the_final_stage() -> None:
    assert [step.text for step in FINAL.all("RUN")] == ["python -m compileall -q /app"]


def test_it_runs_as_nobody_in_particular() -> None:
    order = [step.name for step in FINAL.instructions]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", FINAL.one("USER").text)
    assert order.index("USER") > max(n for n, name in enumerate(order) if name in ("RUN", "COPY"))
    assert "CMD" not in order


@pytest.mark.parametrize("name", ["ENTRYPOINT", "HEALTHCHECK"])
def test_no_command_goes_through_a_shell(name: str) -> None:
    text = re.sub(r"^(--\S+ )*CMD ", "", FINAL.one(name).text)
    assert Instruction(name, text).words[:2] == ["python", "/app/entry.py"]
    assert text.startswith("[")


def copied() -> list[str]:
    steps = [step for stage in (BUILD, FINAL) for step in stage.all("COPY") if "from" not in step.flags]
    sources = [source for step in steps for source in step.text.split()[:-1]]
    modules = {source.replace("${MODULE}", name) for source in sources for name in (*DAEMONS, "stillhouse")}
    return sorted({source.replace("${EXTRA}", name) for source in modules for name in (*DAEMONS, "cli")})


@pytest.mark.parametrize("source", copied())
def test_what_is_copied_exists_and_gets_to_the_builder(source: str) -> None:
    assert (ROOT / source).exists()
    assert any(fnmatch.fnmatch(source, line.removeprefix("!")) for line in IGNORE if line.startswith("!"))


def test_nothing_else_gets_to_the_builder() -> None:
    assert IGNORE[0] == "*"
    let_in = {line.removeprefix("!").split("/")[0] for line in IGNORE if line.startswith("!")}
    assert let_in == {source.split("/")[0] for source in copied()}
