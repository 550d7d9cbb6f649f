"""Personal data in training rows: found in every text of a row, then masked or refused by policy.

A masked value becomes `[EMAIL_1]`: one placeholder for one value throughout the row, so that an answer which
copies an address from the prompt still does. Names are found where a text says that they are names (JSON
fields, salutations, labels), and then masked wherever they stand in the row.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from distill.engine.exports.personal import Span, look, names_in, spans
from distill.engine.exports.targets import Row, Unfit
from schemas.distill import PiiAction, PiiClass, PiiPolicy

PLAIN: Final = frozenset(
    (
        "role",
        "content",
        "messages",
        "prompt",
        "completion",
        "chosen",
        "rejected",
        "conversations",
        "from",
        "value",
        "input",
        "preferred_output",
        "non_preferred_output",
        "weight",
        "tools",
        "tool_calls",
        "id",
        "type",
        "function",
        "name",
        "arguments",
        "system",
        "user",
        "assistant",
        "tool",
        "human",
        "gpt",
        "schema",
        "schema_version",
        "ext",
        "evidence_id",
        "task",
        "query",
        "text",
        "kind",
        "key",
    )
)
"""Words of the rows' own forms, which need no look."""
NUMBER_MIN: Final = 10**8
CHARS_MIN: Final = 5
"""No shorter text holds anything personal by itself."""
NAMES_MAX: Final = 200
"""Names of one row that are looked for; a row with more is refused."""


@dataclass(slots=True)
class _Masks:
    """The placeholders of one row."""

    given: dict[tuple[PiiClass, str], str] = field(default_factory=dict)
    counts: Counter[PiiClass] = field(default_factory=Counter)

    def of(self, kind: PiiClass, key: str) -> str:
        mask = self.given.get((kind, key))
        if mask is None:
            self.counts[kind] += 1
            mask = self.given[kind, key] = f"[{kind.upper()}_{self.counts[kind]}]"
        return mask


class Scanner:
    """Applies a policy to rows. `masked` counts, by class, the rows in which something was masked."""

    def __init__(self, policy: PiiPolicy) -> None:
        self._policy: dict[PiiClass, PiiAction] = policy.model_dump()  # type: ignore[assignment]  # by class
        self._names = policy.name != "keep"
        self.masked: Counter[PiiClass] = Counter()

    def clean(self, row: Row) -> tuple[Row, int]:
        """The row with what the policy masks masked, and how many values those are.

        Raises `Unfit` for what the policy refuses, and for what cannot be masked: a key, or a number that is
        no text.
        """
        texts, others = _leaves(row)
        for other in others:
            self._refuse(other)
        looks = {text: look(text) for text in texts}
        doubtful = {text: seen for text, seen in looks.items() if seen}
        if not doubtful:
            return row, 0
        names = self._names_of(doubtful)
        masks = _Masks()
        looked_at = looks if names else doubtful
        masked = {text: self._mask(text, seen, names, masks) for text, seen in looked_at.items()}
        if not masks.given:
            return row, 0
        for kind in masks.counts:
            self.masked[kind] += 1
        return {key: _replaced(value, masked) for key, value in row.items()}, len(masks.given)

    def _refuse(self, text: str) -> None:
        for one in spans(text):
            if self._policy[one.kind] != "keep":
                raise Unfit(
                    f"pii.{one.kind}", "a key or a number looks like personal data and cannot be masked"
                )

    def _names_of(self, texts: Mapping[str, int]) -> tuple[str, ...]:
        """The names in the texts, longer ones first."""
        if not self._names:
            return ()
        found = {name for text, seen in texts.items() for name in names_in(text, seen=seen)}
        if found and self._policy["name"] == "quarantine":
            raise Unfit("pii.name", "the row names a person")
        if len(found) > NAMES_MAX:
            raise Unfit(
                "pii.names_many", f"the row names {len(found)} people; at most {NAMES_MAX} are masked"
            )
        return tuple(sorted(found, key=lambda one: (-len(one), one)))

    def _mask(self, text: str, seen: int, names: Sequence[str], masks: _Masks) -> str:
        pieces: list[str] = []
        at = 0
        for one in spans(text, names, seen=seen):
            action = self._policy[one.kind]
            if action == "keep":
                continue
            if action == "quarantine":
                raise Unfit(
                    f"pii.{one.kind}", "the row holds personal data that the policy does not let pass"
                )
            mask = masks.of(one.kind, one.key)
            pieces += [text[at : one.start], f'"{mask}"' if _is_json_number(text, one) else mask]
            at = one.end
        if not pieces:
            return text
        masked = "".join([*pieces, text[at:]])
        if any(self._policy[one.kind] != "keep" for one in spans(masked, names)):
            raise Unfit("pii.residue", "something personal is left after masking")
        return masked


def _is_json_number(text: str, one: Span) -> bool:
    """Whether a span is a number of a JSON text, which needs quotes once it is a placeholder."""
    before = text[max(0, one.start - 8) : one.start].rstrip()
    return text.lstrip()[:1] in ("{", "[") and before[-1:] in (":", "[", ",") and text[one.start].isdigit()


def _leaves(row: Row) -> tuple[list[str], list[str]]:
    """The texts of a row that are long enough to hold something; apart from them, keys and long numbers."""
    texts: list[str] = []
    others: list[str] = []
    pending: list[Any] = [row]
    for item in pending:  # which grows meanwhile
        if isinstance(item, str):
            if len(item) >= CHARS_MIN and item not in PLAIN:
                texts.append(item)
        elif isinstance(item, dict):
            others += [key for key in item if key not in PLAIN]
            pending += item.values()
        elif isinstance(item, list):
            pending += item
        elif isinstance(item, int) and abs(item) >= NUMBER_MIN:
            others.append(str(item))
    return texts, others


def _replaced(value: Any, masked: Mapping[str, str]) -> Any:
    """The value with its texts replaced."""
    if isinstance(value, str):
        return masked.get(value, value)
    if isinstance(value, dict):
        return {key: _replaced(item, masked) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, masked) for item in value]
    return value
