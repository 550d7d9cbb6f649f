"""Gates: what a comparison must come to, in the few words that a build file has room for."""

import re
from dataclasses import dataclass
from typing import Final, Literal

from schemas.comparison import ComparisonVerdict, Quality
from services.errors import InvalidRequest

FORMS: Final = ("not worse at 95 %", "not worse than 2 points at 95 %", "better at 95 %")
_NUMBER: Final = r"[0-9]{1,2}(?:\.[0-9]{1,3})?"
_GATE: Final = re.compile(
    rf"(?P<demand>better|not worse)(?: than (?P<margin>{_NUMBER}) points?)? at (?P<confidence>{_NUMBER}) ?%"
)


@dataclass(frozen=True, slots=True)
class Gate:
    """A demand at a confidence from 0 to 1. `margin` is what may be lost, as a share; None: nothing shown."""

    text: str
    demand: Literal["better", "not worse"]
    confidence: float
    margin: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Gate":
        """Raises `InvalidRequest`, which names the forms there are."""
        found = _GATE.fullmatch(text.strip())
        if found is None or (found["demand"] == "better" and found["margin"] is not None):
            raise _not_a_gate(text)
        confidence = float(found["confidence"]) / 100
        if not 0.5 <= confidence < 1:
            raise InvalidRequest(
                f"the gate {text!r} asks for {found['confidence']} %; from 50 % to 99.9 % can be asked for",
                param="gate",
            )
        demand: Literal["better", "not worse"] = "better" if found["demand"] == "better" else "not worse"
        margin = float(found["margin"]) / 100 if found["margin"] is not None else None
        return cls(text.strip(), demand, confidence, margin)

    def judge(self, verdict: ComparisonVerdict, quality: Quality) -> tuple[bool, str]:
        """Whether a comparison at this gate's confidence passes, and why."""
        if self.demand == "better":
            return verdict == "better", f"the verdict is {verdict!r}"
        if self.margin is None:
            return verdict != "worse", f"the verdict is {verdict!r}{_unseen(verdict, quality)}"
        low = quality.interval[0]
        passed = low > -self.margin
        return passed, (
            f"the loss may be as large as {-100 * low:.1f} points; {100 * self.margin:g} are allowed"
            if low < 0
            else "the whole interval is above zero"
        )


def _unseen(verdict: ComparisonVerdict, quality: Quality) -> str:
    """What no evidence of a loss may hide."""
    if verdict != "no evidence":
        return ""
    if quality.detectable is None:
        return "; with so few groups no loss could have been found"
    return f"; a loss below {100 * quality.detectable:.1f} points can go unnoticed with so many tasks"


def _not_a_gate(text: str) -> InvalidRequest:
    forms = ", ".join(f"`{form}`" for form in FORMS)
    return InvalidRequest(
        f"{text!r} is not a gate; these are: {forms}, with other numbers as well", param="gate"
    )
