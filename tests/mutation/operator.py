"""What an operator is: it puts one class of defect into a valid case and says where it must be found.

It claims the part of the artifact that it changes, so that several of them may be combined without one hiding
another, and gives up (`Unfit`) where the case has no room for it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.mutation.agency import Agency
from tests.mutation.cases import Case, Json, segments


class Unfit(Exception):
    """The case has no room for this operator."""


Apply = Callable[[Agency, Case], None]


@dataclass(frozen=True)
class Operator:
    """One class of defect, named by its code and a variant."""

    kind: str
    code: str
    variant: str
    apply: Apply
    alone: bool = False
    """Whether what it breaks keeps other defects from being seen."""
    last: bool = False
    """Whether it has to see the artifact as the others leave it."""

    @property
    def name(self) -> str:
        return f"{self.kind}: {self.code}: {self.variant}"


class Catalogue(list[Operator]):
    """The operators of one file."""

    def add(
        self, kind: str, code: str, variant: str, apply: Apply, *, alone: bool = False, last: bool = False
    ) -> None:
        self.append(Operator(kind, code, variant, apply, alone, last))


def claim(case: Case, part: str) -> None:
    if part in case.touched:
        raise Unfit
    case.touched.add(part)


def claim_text(case: Case, key: str) -> None:
    """Claim the whole text: nothing else may be said in it."""
    if key in case.touched or f"+{key}" in case.touched:
        raise Unfit
    case.touched.add(key)


def order_of(case: Case) -> Json:
    order: Json = case.context["order"]
    return order


def slot(agency: Agency, case: Case, part: str) -> int:
    """A fill whose `part` nobody has claimed, preferably one that is faulty already or another one."""
    free = [n for n in range(len(case.artifact["fills"])) if not {f"{n}", f"{n}:{part}"} & case.touched]
    if not free:
        raise Unfit
    return agency.rng.choice(free)


def untouched(agency: Agency, case: Case, start: int = 0) -> int:
    taken = {mark.partition(":")[0] for mark in case.touched}
    free = [n for n in range(start, len(case.artifact["fills"])) if str(n) not in taken]
    if not free:
        raise Unfit
    return agency.rng.choice(free)


def mutate(agency: Agency, case: Case, operator: Operator, beside: Sequence[Operator] = ()) -> bool:
    """Put a defect into the case, and those of the others that fit. False where it does not fit itself."""
    if operator.alone:
        beside = ()
    for one in sorted([operator, *beside], key=lambda one: one.last):
        try:
            one.apply(agency, case)
        except Unfit:
            if one is operator:
                return False
        else:
            case.operators.append(one.name)
    if case.kind == "sms" and not any(code == "sms.too_long" for code, _ in case.errors):
        _room(case)
    return True


def _room(case: Case) -> None:
    """Let the text be as long as the defects have made it."""
    body = case.artifact.get("body") if isinstance(case.artifact, dict) else None
    if isinstance(body, str) and segments(body) > case.context.get("segments_max", 1):
        case.context["segments_max"] = segments(body)
