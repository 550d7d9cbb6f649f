"""A sitting, key by key: what is sent, what is held back, and that nothing decided gets lost."""

import contextlib
import io
import shlex
from collections import deque
from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from schemas.distill import ReviewItem, ReviewRequest
from schemas.evidence import Evidence, EvidenceInput, Source
from schemas.review import Review
from schemas.runs import ModelRef, RunOutput
from services.errors import InvalidRequest, Unavailable
from stillhouse.review.keyboard import END
from stillhouse.review.screen import Screen
from stillhouse.review.session import NOTE_CHARS_MAX, Session, Tally

NUL = "0" * 64


def item(number: int, answer: str = '{"body": "x"}') -> ReviewItem:
    evidence = Evidence(
        evidence_id=f"{number:064x}",
        source=Source(kind="stillhouse", key="k", segment="s", offset=0, length=1, line_sha256=NUL),
        input=EvidenceInput(messages=[{"role": "user", "content": "q" * 3000}]),
        output=RunOutput(content=answer),
        model=ModelRef(provider="p", name="m"),
    )
    return ReviewItem(evidence=evidence, state="undecided", decisions=[])


class Keys:
    """A keyboard on which everything was typed before; a line follows the `n` that asks for it."""

    def __init__(self, keys: str, notes: Iterable[str] = ()) -> None:
        self._keys = deque(keys)
        self._notes = deque(notes)

    def key(self) -> str:
        key = self._keys.popleft() if self._keys else END
        if key == "^":
            raise KeyboardInterrupt
        return key

    def line(self, prompt: str) -> str:
        assert prompt
        return self._notes.popleft()

    def released(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()


class Items:
    """A feed that fails before each of the given numbers of calls."""

    def __init__(self, items: Iterable[ReviewItem], *, failures: int = 0) -> None:
        self._items = deque(items)
        self._failures = failures
        self.waiting = len(self._items)

    def next(self) -> ReviewItem | None:
        if self._failures:
            self._failures -= 1
            raise Unavailable("nobody is there")
        return self._items.popleft() if self._items else None


class Kept:
    """Keeps what is sent, after refusing it as often as asked."""

    def __init__(self, failures: int = 0) -> None:
        self.requests: list[tuple[int, ReviewRequest]] = []
        self._failures = failures

    def __call__(self, evidence_id: str, request: ReviewRequest) -> Review:
        if self._failures:
            self._failures -= 1
            raise Unavailable("the disk is full")
        self.requests.append((int(evidence_id, 16), request))
        correction = request.correction
        assert not isinstance(correction, str)
        return Review(
            review_id=f"v{len(self.requests)}",
            ts=datetime.now(UTC),
            evidence_id=evidence_id,
            decision=request.decision,
            by=request.by,
            note=request.note,
            correction=correction,
        )


class Typist:
    """Types these texts into the editor, one each time; an error is what the editor ends with."""

    def __init__(self, *typed: str | InvalidRequest) -> None:
        self._typed = deque(typed)
        self.found: list[str] = []

    def __call__(self, path: Path) -> None:
        self.found.append(path.read_text())
        typed = self._typed.popleft()
        if isinstance(typed, InvalidRequest):
            raise typed
        path.write_text(typed)


def sat(folder: Path, keys: Keys, feed: Items, kept: Kept, edit: Typist | None = None) -> tuple[Tally, str]:
    shown = io.StringIO()
    session = Session(
        by="ann",
        send=kept,
        keyboard=keys,
        screen=Screen(Console(file=shown, width=120, markup=False, highlight=False)),
        edit=edit or Typist(),
        folder=folder,
    )
    return session.run(feed), shown.getvalue()


def test_each_decision_is_sent_by_enter_and_told_by_its_id(tmp_path: Path) -> None:
    kept = Kept()
    tally, shown = sat(tmp_path, Keys("a\nr\r"), Items([item(1), item(2)]), kept)
    assert [(number, one.decision) for number, one in kept.requests] == [(1, "accept"), (2, "reject")]
    assert (tally.decided["accept"], tally.decided["reject"], tally.unsent) == (1, 1, None)
    assert "kept as review v1" in shown
    assert "kept as review v2" in shown


@pytest.mark.parametrize("keys", ["aq", "as", "rq", "\n", "u", "xyz", "?v"])
def test_nothing_is_sent_that_was_not_confirmed(tmp_path: Path, keys: str) -> None:
    kept = Kept()
    sat(tmp_path, Keys(keys), Items([item(1)]), kept)
    assert kept.requests == []


def test_what_was_taken_back_is_not_sent(tmp_path: Path) -> None:
    kept = Kept()
    tally, _ = sat(tmp_path, Keys("aus" + "ru\nq"), Items([item(1), item(2), item(3)]), kept)
    assert kept.requests == []
    assert (tally.skipped, tally.unsent) == (1, None)


@pytest.mark.parametrize("end", ["^", END, ""])
def test_what_is_decided_and_not_sent_is_given_back_as_a_command(tmp_path: Path, end: str) -> None:
    tally, _ = sat(tmp_path, Keys(f"nr{end}", ["it's bad"]), Items([item(1)]), Kept())
    assert tally.unsent is not None
    assert shlex.split(tally.unsent)[3:] == [
        *("--id", f"{1:064x}"),
        *("--decide", "reject"),
        *("--by", "ann"),
        *("--note", "it's bad"),
    ]


def test_a_correction_that_was_not_sent_stays_in_its_file(tmp_path: Path) -> None:
    tally, _ = sat(tmp_path, Keys("c^"), Items([item(1)]), Kept(), Typist('{"body": "y"}'))
    assert tally.unsent is not None
    assert Path(shlex.split(tally.unsent)[-1]).read_text() == '{"body": "y"}'


def test_what_is_not_kept_is_sent_again_by_enter(tmp_path: Path) -> None:
    kept = Kept(failures=2)
    _, shown = sat(tmp_path, Keys("na\n\n\n", ["why"]), Items([item(1)]), kept)
    assert [(one.decision, one.note) for _, one in kept.requests] == [("accept", "why")]
    assert shown.count("not kept: the disk is full") == 2


def test_a_queue_that_cannot_be_read_is_asked_again(tmp_path: Path) -> None:
    kept = Kept()
    sat(tmp_path, Keys("\n\na\n"), Items([item(1)], failures=2), kept)
    assert len(kept.requests) == 1
    tally, _ = sat(tmp_path, Keys("q"), Items([item(1)], failures=1), kept)
    assert tally == Tally()


def test_a_mistake_in_a_correction_is_mended_where_it_was_made(tmp_path: Path) -> None:
    kept, typist = Kept(), Typist('{"body": ', '{"body": "y"}')
    _, shown = sat(tmp_path, Keys("c\nc\n"), Items([item(1)]), kept, typist)
    assert typist.found[1] == '{"body": '
    assert "this is not JSON" in shown
    ((_, request),) = kept.requests
    assert request.correction == RunOutput(content='{"body": "y"}')


def test_a_correction_that_failed_leaves_none_before_it_in_force(tmp_path: Path) -> None:
    kept = Kept()
    typist = Typist('{"body": "y"}', InvalidRequest("the editor ended with status 1"))
    sat(tmp_path, Keys("cc\nq"), Items([item(1)]), kept, typist)
    assert kept.requests == []


def test_another_decision_leaves_the_correction_behind(tmp_path: Path) -> None:
    kept = Kept()
    sat(tmp_path, Keys("ca\n"), Items([item(1)]), kept, Typist('{"body": "y"}'))
    ((_, request),) = kept.requests
    assert (request.decision, request.correction) == ("accept", None)


def test_a_note_that_is_too_long_is_said_to_be(tmp_path: Path) -> None:
    kept = Kept()
    keys = Keys("nna\n", ["x" * (NOTE_CHARS_MAX + 1), "short"])
    _, shown = sat(tmp_path, keys, Items([item(1)]), kept)
    assert f"at most {NOTE_CHARS_MAX} are kept" in shown
    assert [one.note for _, one in kept.requests] == ["short"]


def test_long_texts_are_shown_in_full_when_asked(tmp_path: Path) -> None:
    _, cut = sat(tmp_path, Keys("q"), Items([item(1)]), Kept())
    _, full = sat(tmp_path, Keys("vq"), Items([item(1)]), Kept())
    assert "1,000 more characters" in cut
    assert cut.count("q" * 80) < full.count("q" * 80) - 12
