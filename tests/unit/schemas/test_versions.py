"""What readers do with records of other versions."""

from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from schemas.records import Record


class Order(Record):
    """A record in its third major: 1.x called the role a job, 2.x kept the count as a text."""

    schema_id: ClassVar[str] = "test.order"
    version: ClassVar[str] = "3.1"
    upcasters: ClassVar = {
        1: lambda old: {**{key: old[key] for key in old if key != "job"}, "role": old["job"]},
        2: lambda old: {**old, "count": int(old["count"])},
    }

    schema_version: str = "3.1"
    role: str
    count: int


def read(**fields: Any) -> Order:
    return Order.model_validate({"schema": "test.order", **fields})


def test_an_older_major_goes_through_every_upcaster() -> None:
    order = read(schema_version="1.4", job="welder", count="3")
    assert (order.role, order.count, order.schema_version) == ("welder", 3, "3.1")
    assert read(schema_version="2.0", role="welder", count="3") == order


def test_the_line_that_was_read_is_left_as_it_is() -> None:
    line = {"schema": "test.order", "schema_version": "1.0", "job": "welder", "count": "3"}
    before = dict(line)
    Order.model_validate(line)
    assert line == before


def test_an_older_major_is_checked_like_any_other() -> None:
    with pytest.raises(ValidationError, match="extra"):
        read(schema_version="2.0", role="welder", count="3", colour="red")


def test_a_newer_minor_keeps_what_we_do_not_know_in_ext() -> None:
    order = read(schema_version="3.9", role="welder", count=3, colour="red", ext={"a": 1})
    assert order.ext == {"a": 1, "colour": "red"}
    assert order.schema_version == "3.9"


@pytest.mark.parametrize(
    ("version", "said"),
    [("4.0", "4.0 cannot be read here; this reader knows 3.1"), ("0.9", "0.x cannot be read any more")],
)
def test_what_cannot_be_read_is_refused_by_name(version: str, said: str) -> None:
    with pytest.raises(ValidationError, match=f"test.order {said}"):
        read(schema_version=version, role="welder", count=3)
