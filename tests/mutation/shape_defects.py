"""What may be wrong with an artifact's shape: types, keys, text that is no JSON, times without an offset."""
# ruff: noqa: ARG001 - operators are called alike, whatever they need of it

from collections.abc import Callable
from typing import Any

from tests.mutation.agency import Agency
from tests.mutation.cases import Case
from tests.mutation.operator import Apply, Catalogue, Unfit, claim, claim_text, order_of

DEFECTS = Catalogue()


def _shape(path: str, change: Callable[[Case], None], part: str = "") -> Apply:
    def apply(agency: Agency, case: Case) -> None:
        if part in ("subject", "body"):
            claim_text(case, part)
            case.context.pop("first_contact", None)
        elif part == "0":
            taken = any(mark.partition(":")[0] == "0" for mark in case.touched)
            if taken or not case.artifact["fills"]:
                raise Unfit
            case.touched.add("0")
        elif part:
            claim(case, part)
        change(case)
        case.errors.append(("schema.invalid", path))

    return apply


def _put(key: str, value: Any) -> Callable[[Case], None]:
    return lambda case: case.artifact.__setitem__(key, value)


def _drop(key: str) -> Callable[[Case], None]:
    return lambda case: case.artifact.pop(key)


def _whole(value: Any) -> Callable[[Case], None]:
    def change(case: Case) -> None:
        case.artifact = value

    return change


def _time(key: str, value: str | None) -> Callable[[Case], None]:
    def change(case: Case) -> None:
        order_of(case)[key] = order_of(case)[key][:16] if value is None else value

    return change


WHOLES: dict[str, Any] = {
    "prose": "Here you go: {}",
    "cut short": '{"to": "',
    "not a number": '{"to": NaN}',
    "list": [],
    "null": None,
    "number": 7,
    "blank text": " ",
}
for _kind in ("fill", "email", "sms"):
    for _variant, _value in WHOLES.items():
        DEFECTS.add(_kind, "schema.invalid", _variant, _shape("", _whole(_value)), alone=True)
    DEFECTS.add(_kind, "schema.invalid", "unknown key", _shape("/no~1te", _put("no/te", 1), "unknown"))
for _variant, _path, _change_shape in (
    ("fills: text", "/fills", _put("fills", "W-1")),
    ("fills: null", "/fills", _put("fills", None)),
    ("fills: object", "/fills", _put("fills", {"worker_id": "W-1"})),
    ("fills: missing", "/fills", _drop("fills")),
    ("start: no offset", "", _time("start", None)),
    ("end: no offset", "", _time("end", None)),
    ("start: no time", "", _time("start", "tomorrow at six")),
):
    DEFECTS.add("fill", "schema.invalid", _variant, _shape(_path, _change_shape), alone=True)
for _variant, _path, _change_shape in (
    ("order: number", "/order_id", _put("order_id", 219384756)),
    ("order: missing", "/order_id", _drop("order_id")),
    ("fill: text", "/fills/0", lambda case: case.artifact["fills"].__setitem__(0, "W-1")),
    ("worker: number", "/fills/0/worker_id", lambda case: case.artifact["fills"][0].update(worker_id=1)),
    ("worker: missing", "/fills/0/worker_id", lambda case: case.artifact["fills"][0].pop("worker_id")),
    ("name: list", "/fills/0/name", lambda case: case.artifact["fills"][0].update(name=["A"])),
    ("fill: unknown key", "/fills/0/pay", lambda case: case.artifact["fills"][0].update(pay=3)),
):
    _claimed = _path.split("/")[-2 if _path.count("/") > 2 else -1]
    DEFECTS.add("fill", "schema.invalid", _variant, _shape(_path, _change_shape, _claimed))
for _variant, _path, _change_shape in (
    ("to: text", "/to", _put("to", "a@gmail.com")),
    ("to: number in it", "/to/0", _put("to", [5])),
    ("to: missing", "/to", _drop("to")),
    ("cc: text", "/cc", _put("cc", "a@gmail.com")),
    ("from: list", "/from", _put("from", ["a@gmail.com"])),
    ("subject: number", "/subject", _put("subject", 5)),
    ("body: list", "/body", _put("body", ["Hi"])),
    ("headers: list", "/headers", _put("headers", ["a: b"])),
    ("headers: number in it", "/headers/X-A", _put("headers", {"X-A": 1})),
):
    DEFECTS.add("email", "schema.invalid", _variant, _shape(_path, _change_shape, _path.split("/")[1]))
for _variant, _path, _change_shape in (
    ("to: list", "/to", _put("to", ["+16145550100"])),
    ("to: number", "/to", _put("to", 16145550100)),
    ("to: missing", "/to", _drop("to")),
    ("body: number", "/body", _put("body", 5)),
):
    DEFECTS.add("sms", "schema.invalid", _variant, _shape(_path, _change_shape, _path.split("/")[1]))
