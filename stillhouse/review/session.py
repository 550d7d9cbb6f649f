"""A reviewer's sitting: piece after piece is shown, and what is decided is sent when the reviewer says so.

A decision waits for Enter, so that a slip of the finger can be taken back; until it is kept, the sitting does
not go on to the next piece.
"""

import shlex
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol

from schemas.distill import ReviewItem, ReviewRequest
from schemas.review import Decision, Review
from schemas.runs import RunOutput
from services.errors import InvalidRequest, PlatformError
from stillhouse.review.corrections import Draft, Edit
from stillhouse.review.keyboard import END, Keyboard
from stillhouse.review.screen import PAST, Screen

NOTE_CHARS_MAX: Final = 10_000
PROMPT: Final = "a accept  r reject  c correct  n note  u undo  s skip  v view all  ? help  q quit"
HELP: Final = """\
a  accept the answer           r  reject it            c  correct it, in your editor
n  say why, in a line          u  take back what is not sent yet
Enter  send the decision, and go on to the next piece
s  go on without a decision    v  show texts in full   q  end
What was sent stays in the log. To change your mind, open the piece again by --id: your latest word counts."""


class Source(Protocol):
    """Where the pieces come from: `reviews.Feed`."""

    @property
    def waiting(self) -> int:
        """How many there are in all, once the first was given."""
        ...

    def next(self) -> ReviewItem | None:
        """The next piece, or None at the end. Where it raises, the same call can be made again."""
        ...


Step = Literal["next", "end"]
Send = Callable[[str, ReviewRequest], Review]


@dataclass(slots=True)
class Tally:
    """What came of a sitting. `unsent` is the command that sends the decision that was not kept."""

    decided: Counter[Decision] = field(default_factory=Counter)
    skipped: int = 0
    unsent: str | None = None


@dataclass(slots=True)
class _Sheet:
    """The piece that is worked on: its decision until that is sent, and what was typed for it."""

    item: ReviewItem
    place: str
    decision: Decision | None = None
    note: str | None = None
    typed: str | None = None
    correction: RunOutput | None = None

    @property
    def id(self) -> str:
        return self.item.evidence.evidence_id


class Session:
    """`folder` is where corrections are typed; what lies in it is gone when the caller removes it."""

    def __init__(
        self, *, by: str, send: Send, keyboard: Keyboard, screen: Screen, edit: Edit, folder: Path
    ) -> None:
        self._by = by
        self._send = send
        self._keyboard = keyboard
        self._screen = screen
        self._edit = edit
        self._folder = folder
        self._tally = Tally()
        self._keys: Mapping[str, Callable[[_Sheet], Step | None]] = {
            "a": lambda sheet: self._decide(sheet, "accept"),
            "r": lambda sheet: self._decide(sheet, "reject"),
            "c": self._correct,
            "n": self._note,
            "u": self._undo,
            "v": self._view,
            "?": self._help,
            "\n": self._keep,
            "\r": self._keep,
            "s": self._skip,
            "q": self._quit,
            END: lambda _: "end",
        }

    def run(self, feed: Source) -> Tally:
        """Go through the feed until it ends, or the reviewer does."""
        number = 0
        while (item := self._next(feed)) is not None:
            number += 1
            sheet = _Sheet(item, f"{number} of {max(number, feed.waiting)}")
            try:
                step = self._work_on(sheet)
            except KeyboardInterrupt:
                step = "end"
            if step == "end":
                self._tally.unsent = self._command_of(sheet)
                break
        return self._tally

    def _next(self, feed: Source) -> ReviewItem | None:
        while True:
            try:
                item = feed.next()
            except PlatformError as error:
                self._screen.say(f"{error.message}; Enter tries again, q ends", "bold red")
                if self._keyboard.key() in {"q", END}:
                    return None
                continue
            if item is None:
                self._screen.say("Nothing more waits.")
            return item

    def _work_on(self, sheet: _Sheet) -> Step:
        self._screen.show(sheet.item, sheet.place, full=False)
        self._screen.say(PROMPT, "dim")
        while True:
            work = self._keys.get(self._keyboard.key())
            step = work(sheet) if work is not None else None
            if step is not None:
                return step

    # --- keys ---------------------------------------------------------------------------------

    def _decide(self, sheet: _Sheet, decision: Decision) -> None:
        sheet.decision = decision
        if decision != "correct":
            sheet.correction = None
        self._screen.say(f"{decision}: Enter sends it, n adds a note, u takes it back", "bold")

    def _correct(self, sheet: _Sheet) -> None:
        output = sheet.item.evidence.output
        draft = Draft.of(output)
        sheet.decision = sheet.correction = None
        try:
            sheet.typed = self._typed(sheet, draft)
            sheet.correction = draft.read(sheet.typed, output)
        except InvalidRequest as error:
            kept = "" if sheet.typed is None else "; c opens it again as you left it"
            self._screen.say(f"{error.message}{kept}", "bold red")
            return
        self._screen.show_difference(draft.difference(sheet.typed))
        self._decide(sheet, "correct")

    def _typed(self, sheet: _Sheet, draft: Draft) -> str:
        """What the reviewer makes of the draft, beginning with what was typed before."""
        path = self._file_of(sheet, draft)
        path.write_text(draft.text if sheet.typed is None else sheet.typed)
        with self._keyboard.released():
            self._edit(path)
        try:
            return path.read_text()
        except (OSError, UnicodeDecodeError):
            raise InvalidRequest(f"{path} cannot be read as UTF-8 text") from None

    def _file_of(self, sheet: _Sheet, draft: Draft) -> Path:
        return self._folder / f"{sheet.id[:12]}{draft.suffix}"

    def _note(self, sheet: _Sheet) -> None:
        note = self._keyboard.line("note: ").strip()
        if len(note) > NOTE_CHARS_MAX:
            self._screen.say(
                f"the note has {len(note)} characters; at most {NOTE_CHARS_MAX} are kept", "bold red"
            )
            return
        sheet.note = note or None
        self._screen.say("noted; it is sent with the decision" if note else "no note", "dim")

    def _undo(self, sheet: _Sheet) -> None:
        if sheet.decision is None:
            self._screen.say("there is nothing to take back", "dim")
            return
        self._screen.say(f"{sheet.decision} taken back", "dim")
        sheet.decision = sheet.correction = None

    def _view(self, sheet: _Sheet) -> None:
        self._screen.show(sheet.item, sheet.place, full=True)
        self._screen.say(PROMPT, "dim")

    def _help(self, _: _Sheet) -> None:
        self._screen.say(HELP)

    def _keep(self, sheet: _Sheet) -> Step | None:
        if sheet.decision is None:
            self._screen.say("nothing is decided yet; s goes on without a decision", "dim")
            return None
        request = ReviewRequest.model_validate(
            {
                "decision": sheet.decision,
                "by": self._by,
                **({"note": sheet.note} if sheet.note is not None else {}),
                **({"correction": sheet.correction} if sheet.correction is not None else {}),
            }
        )
        try:
            review = self._send(sheet.id, request)
        except PlatformError as error:
            self._screen.say(f"not kept: {error.message}; Enter tries again", "bold red")
            return None
        self._tally.decided[sheet.decision] += 1
        self._screen.say(f"{PAST[sheet.decision]}, kept as review {review.review_id}", "green")
        sheet.decision = None
        return "next"

    def _skip(self, sheet: _Sheet) -> Step | None:
        if self._is_pending(sheet):
            return None
        self._tally.skipped += 1
        return "next"

    def _quit(self, sheet: _Sheet) -> Step | None:
        return None if self._is_pending(sheet) else "end"

    def _is_pending(self, sheet: _Sheet) -> bool:
        if sheet.decision is None:
            return False
        self._screen.say(f"{sheet.decision} is not sent yet: Enter sends it, u takes it back", "bold yellow")
        return True

    # --- what is left -------------------------------------------------------------------------

    def _command_of(self, sheet: _Sheet) -> str | None:
        """The command that does what the reviewer had decided and not sent."""
        if sheet.decision is None:
            return None
        words = ["stillhouse", "distill", "review", "--id", sheet.id, "--decide", sheet.decision]
        words += ["--by", self._by]
        if sheet.note is not None:
            words += ["--note", sheet.note]
        if sheet.decision == "correct":
            words += ["--correction", str(self._file_of(sheet, Draft.of(sheet.item.evidence.output)))]
        return shlex.join(words)
