"""Findings are put in an order that depends on nothing but themselves, whatever their paths hold."""

import random

from validators.engine.findings import Report, pointer

PATHS = ["", "/fills/2", "/fills/10", "/fills/10/name", "/fills/x", f"/{'9' * 5000}", "/٣", "/²", "/a~1b/0"]


def test_places_come_in_numeric_order_and_any_text_may_be_a_key() -> None:
    orders = []
    for seed in range(5):
        report = Report({"x.y": "error"})
        for path in random.Random(seed).sample(PATHS, len(PATHS)):
            report.add("x.y", path, "a message")
        orders.append([found.path for found in report.sorted()])
    assert all(order == orders[0] for order in orders)
    places = [orders[0].index(path) for path in ("", "/fills/2", "/fills/10", "/fills/10/name", "/fills/x")]
    assert places == sorted(places)


def test_a_pointer_escapes_its_parts() -> None:
    assert pointer("a/b", 0, "~") == "/a~1b/0/~0"
