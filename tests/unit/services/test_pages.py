"""Which requests a page of another site may have sent, by what browsers say of them."""

import pytest
from starlette.types import Scope

from services.pages import PageGuard, is_near


@pytest.mark.parametrize(
    "authority",
    [
        *("localhost", "localhost:3100", "LOCALHOST.", "127.0.0.1:3100", "[::1]:3100", "[::1]", "10.0.0.7"),
        *("gateway", "gateway:3100", "app.localhost", "printer.local", "gateway.internal:80", ""),
    ],
)
def test_addresses_and_names_that_nobody_can_have_are_near(authority: str) -> None:
    assert is_near(authority)


@pytest.mark.parametrize(
    "authority",
    [
        *("evil.example", "evil.example:3100", "127.0.0.1.evil.example", "localhost.evil.example:80"),
        *("1.2.3", "127.0.0.1@evil.example", "evil.example.", "evil.local.example", "[evil.example]"),
    ],
)
def test_names_of_the_internet_are_not(authority: str) -> None:
    assert not is_near(authority)


def asked(**headers: str) -> Scope:
    return {"type": "http", "headers": [(name.encode(), value.encode()) for name, value in headers.items()]}


def test_a_page_is_told_by_its_origin_or_by_the_name_that_it_made_lead_here() -> None:
    guard = PageGuard(lambda: True, ["https://app.example.com"])
    for near in ("http://localhost:5173", "http://127.0.0.1", "https://[::1]:8", "https://app.example.com"):
        assert guard.admits(asked(host="127.0.0.1:3100", origin=near))
    for far in (
        "null",
        "https://evil.example",
        "file://",
        "chrome-extension://abc",
        "https://app.example.com.x",
    ):
        assert not guard.admits(asked(host="127.0.0.1:3100", origin=far))
    assert guard.admits(asked(host="127.0.0.1:3100"))
    assert guard.admits(asked())
    assert not guard.admits(asked(host="evil.example:3100"))
    assert not guard.admits(asked(host="evil.example:3100", origin="https://app.example.com"))
    assert PageGuard(lambda: True, ["*"]).admits(asked(host="localhost", origin="https://evil.example"))


def test_where_callers_show_who_they_are_any_page_may_ask() -> None:
    assert PageGuard(lambda: False).admits(asked(host="evil.example", origin="https://evil.example"))
