"""A correction comes back in the form that the answer had, or is refused in words."""

import sys
from pathlib import Path

import pytest

from schemas.runs import RunOutput
from services.errors import InvalidRequest
from stillhouse.review.corrections import Draft, edit_with_editor

COMPACT = RunOutput(content='{"body": "x"}')
CALL = RunOutput(content=None, tool_calls=[{"id": "1", "function": {"name": "f", "arguments": "{}"}}])


@pytest.mark.parametrize(
    ("output", "edited", "content"),
    [
        (COMPACT, '{\n  "body": "y"\n}\n', '{"body": "y"}'),
        (RunOutput(content='{\n "body": "x"\n}'), '{\n "body": "y"\n}\n', '{\n "body": "y"\n}'),
        (RunOutput(content="words"), "other words\n", "other words"),
        (None, "words\n", "words"),
        (RunOutput(content="7"), "8\n", "8"),
    ],
)
def test_a_correction_has_the_form_of_the_answer(output: RunOutput | None, edited: str, content: str) -> None:
    assert Draft.of(output).read(edited, output) == RunOutput(content=content)


def test_an_answer_that_calls_tools_is_corrected_as_a_whole() -> None:
    draft = Draft.of(CALL)
    corrected = draft.read(draft.text.replace('"f"', '"g"'), CALL)
    assert corrected.tool_calls == [{"id": "1", "function": {"name": "g", "arguments": "{}"}}]


@pytest.mark.parametrize(
    ("output", "edited", "message"),
    [
        (COMPACT, '{"body": }', "not JSON.*line 1, column"),
        (COMPACT, '{"body": NaN}', "not JSON"),
        (COMPACT, '{\n  "body": "x"\n}', "nothing was changed"),
        (COMPACT, " \n", "nothing is left"),
        (CALL, '{"contents": "x"}', "content"),
        (CALL, "[1]", "RunOutput|dictionary|object"),
    ],
)
def test_what_cannot_be_an_answer_is_refused(output: RunOutput, edited: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        Draft.of(output).read(edited, output)


def test_the_difference_is_told_by_line() -> None:
    draft = Draft.of(COMPACT)
    told = list(draft.difference('{\n  "body": "y"\n}\n'))
    assert '-  "body": "x"' in told
    assert '+  "body": "y"' in told


@pytest.mark.parametrize(
    ("editor", "message"),
    [
        ("/nowhere/editor", "cannot be started"),
        (f"{sys.executable} -c 'raise SystemExit(3)'", "ended with status 3"),
    ],
)
def test_an_editor_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, editor: str, message: str
) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", editor)
    with pytest.raises(InvalidRequest, match=message):
        edit_with_editor(tmp_path / "answer.json")
