"""What the model may answer at all: the kind's JSON Schema, narrowed to the order or recipient in question.

A small model that can only write the right order id, the right number of fills and ids that somebody has
named goes wrong less often. Nothing is trusted because of it: what comes back is validated like any answer.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from pydantic import JsonValue

from chatd.engine.artifacts import with_fixes
from schemas.base import JsonObject
from schemas.verdicts import Finding

COUNT_MAX: Final = 100
"""Larger orders are not counted by the grammar, which grows with the number."""
CANDIDATES_MAX: Final = 200
SUBJECT_CHARS_MAX: Final = 78
GSM_CHARS: Final = (160, 153)
"""Characters of a single text message, and of each segment of a longer one."""

_ID: Final = re.compile(r"(?<![\w.-])[A-Za-z]{1,8}[-_]?\d{1,12}(?![\w-])")
_PHONE: Final = re.compile(r"(?<![\w+])\+[1-9]\d{7,14}(?!\w)")
_EMAIL: Final = re.compile(
    r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])", re.ASCII
)
_WORKER: Final = re.compile(r"/fills/(\d{1,6})/worker_id")
_DIGITS: Final = re.compile(r"\d+")


class Narrowing:
    """The schema of one piece of work. It learns who is free from fixes, and who is not from findings.

    Ids of workers come from the payloads of notes, from what the user wrote (never from instructions, which
    hold examples) and from fixes. They bind the model only when there are enough of them to fill the order;
    those whom a verdict found nothing against, or offered, go before the others. Once the model has named
    somebody twice, each seat has candidates of its own.
    """

    def __init__(
        self,
        kind: str,
        schema: JsonObject,
        context: JsonObject,
        *,
        said: str = "",
        worker_ids: Iterable[str] = (),
    ) -> None:
        self._kind = kind
        self._schema = schema
        self._context = context
        self._order = _object(context.get("order"))
        self._workers = dict.fromkeys(worker_ids)
        self._workers.update(dict.fromkeys(self._ids_in(said)))
        self._refused: set[str] = set()
        self._vouched: set[str] = set()
        self._repeats = False
        self._mended: list[str] = []
        self._numbers = list(dict.fromkeys(_PHONE.findall(said)))[:CANDIDATES_MAX]
        self._addresses = list(dict.fromkeys(_EMAIL.findall(said)))[:CANDIDATES_MAX]

    def schema(self) -> JsonObject:
        """What the next answer is held to. Kinds that are not known here keep their own schema."""
        match self._kind:
            case "fill":
                return self._fill()
            case "sms":
                return self._sms()
            case "email":
                return self._email()
            case _:
                return self._schema

    def learn(self, artifact: JsonValue, findings: Sequence[Finding]) -> None:
        """Take note of what a verdict says about candidates."""
        errors = [finding for finding in findings if finding.severity == "error"]
        repeated = [finding for finding in errors if finding.code == "fill.duplicate_worker"]
        self._repeats = self._repeats or bool(repeated)
        named = dict.fromkeys(_worker_ids(_object(artifact).get("fills")))
        self._workers |= named
        self._vouched.update(named)
        for finding in errors:
            if finding not in repeated:
                self._refused.update(_blamed(artifact, finding.path))
        self._mended = list(_worker_ids(_object(with_fixes(artifact, findings)).get("fills")))
        for finding in findings:
            fix = finding.fix or {}
            offered = dict.fromkeys(_worker_ids(fix.get("value")))
            self._workers |= offered
            self._refused.difference_update(offered)
            self._vouched.update(offered)
            self._learn_recipient(fix)

    def shown(self, document: JsonValue) -> JsonValue:
        """A document as the schema would let the model write it: without the names beside the ids."""
        if self._kind != "fill" or not self._candidates() or not isinstance(document, dict):
            return document
        fills = document.get("fills")
        if not isinstance(fills, list):
            return document
        return {**document, "fills": [_without_name(fill) for fill in fills]}

    # --- kinds ------------------------------------------------------------------------------

    def _fill(self) -> JsonObject:
        count = self._count()
        candidates = self._candidates()
        fills: JsonObject = {"type": "array", "items": _ANY_FILL}
        if candidates and count is not None and self._repeats:
            seats: list[JsonValue] = [_fill_of(seat) for seat in self._seats(candidates, count)]
            fills = {"type": "array", "prefixItems": seats, "items": False}
        elif candidates:
            fills["items"] = _fill_of(candidates)
        if count is not None:
            fills |= {"minItems": count, "maxItems": count}
        order_id = self._order.get("order_id")
        written: JsonObject = {"const": order_id} if isinstance(order_id, str) else {"type": "string"}
        return _closed({"order_id": written, "fills": fills})

    def _sms(self) -> JsonObject:
        segments = self._context.get("segments_max", 1)
        body: JsonObject = {"type": "string", "minLength": 1}
        if type(segments) is int and 1 <= segments <= COUNT_MAX:
            body["maxLength"] = GSM_CHARS[0] if segments == 1 else GSM_CHARS[1] * segments
        return _closed({"to": _one_of(self._numbers), "body": body})

    def _email(self) -> JsonObject:
        to: JsonObject = {"type": "array", "minItems": 1, "items": _one_of(self._addresses)}
        others: list[str] = []
        if isinstance(address := _object(self._context.get("recipient")).get("email"), str):
            to |= {"maxItems": 1, "items": {"const": address}}
            others = [other for other in self._addresses if other.casefold() != address.casefold()]
        subject: JsonObject = {"type": "string", "minLength": 1, "maxLength": SUBJECT_CHARS_MAX}
        draft: JsonObject = {"to": to, "subject": subject, "body": {"type": "string", "minLength": 1}}
        if others:  # the user wrote them for a reason
            draft |= {"cc": {"type": "array", "items": _one_of(others)}, "from": _one_of(others)}
        return _closed(draft, optional=("cc", "from"))

    # --- candidates -------------------------------------------------------------------------

    def _count(self) -> int | None:
        count = self._order.get("count")
        return count if type(count) is int and 1 <= count <= COUNT_MAX else None

    def _candidates(self) -> list[str]:
        """Who may be named; nobody in particular while fewer are known than the order asks for."""
        needed = self._count()
        free = [worker_id for worker_id in self._workers if worker_id not in self._refused]
        if needed is None or len(free) < needed:
            return []
        vouched = [worker_id for worker_id in free if worker_id in self._vouched]
        if len(vouched) >= needed and not self._repeats:
            return vouched[:CANDIDATES_MAX]
        others = [worker_id for worker_id in free if worker_id not in self._vouched]
        return [*vouched, *others][:CANDIDATES_MAX]

    def _seats(self, candidates: Sequence[str], count: int) -> list[list[str]]:
        """Candidates for each seat, nobody in two; first whoever has it in the mended answer."""
        mended = dict.fromkeys(worker_id for worker_id in self._mended if worker_id in candidates)
        first = [*mended] if len(mended) == count else []
        others = [worker_id for worker_id in candidates if worker_id not in first]
        return [[*first[seat : seat + 1], *others[seat::count]] for seat in range(count)]

    def _ids_in(self, said: str) -> Iterator[str]:
        """Words of the user's that look like ids, but not like the order's own or its client's.

        Where ids of workers are known, the others must look like them.
        """
        shapes = {_shape(worker_id) for worker_id in self._workers}
        others = {_shape(value) for value in self._order.values() if isinstance(value, str)}
        for word in _ID.findall(said):
            if (_shape(word) in shapes) if shapes else (_shape(word) not in others):
                yield word

    def _learn_recipient(self, fix: JsonObject) -> None:
        value, path = fix.get("value"), fix.get("path")
        if not isinstance(value, str):
            return
        if path == "/to":
            self._numbers = [value]
        elif path == "/to/0":
            self._addresses = [value]


def _object(value: JsonValue) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _closed(properties: JsonObject, *, optional: Sequence[str] = ()) -> JsonObject:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


_ANY_FILL: Final = _closed(
    {"worker_id": {"type": "string", "minLength": 1}, "name": {"type": "string"}}, optional=("name",)
)


def _fill_of(worker_ids: Sequence[str]) -> JsonObject:
    return _closed({"worker_id": {"enum": list(worker_ids)}})


def _one_of(values: Sequence[str]) -> JsonObject:
    return {"enum": list(values)} if values else {"type": "string", "minLength": 1}


def _shape(word: str) -> str:
    return _DIGITS.sub("0", word)


def _worker_ids(value: JsonValue) -> Iterator[str]:
    """The ids in a fix: it brings one fill, or the whole list."""
    for fill in value if isinstance(value, list) else [value]:
        worker_id = _object(fill).get("worker_id")
        if isinstance(worker_id, str):
            yield worker_id


def _blamed(artifact: JsonValue, path: str) -> Iterator[str]:
    """The id that a finding points at."""
    found = _WORKER.fullmatch(path)
    fills = _object(artifact).get("fills")
    if found and isinstance(fills, list) and int(found[1]) < len(fills):
        yield from _worker_ids(fills[int(found[1])])


def _without_name(fill: Any) -> Any:
    if not isinstance(fill, dict):
        return fill
    return {key: value for key, value in fill.items() if key != "name"}
