"""Pages of other origins: off unless the settings name some, and then by the ordinary way."""

from starlette.types import Scope

from services.protocol import DirectExchange, Door


def is_page(scope: Scope) -> bool:
    """Whether a page asks, whose browser wants to be told that it may."""
    return any(name == b"origin" for name, _ in scope["headers"])


class DoorForPrograms:
    """A door that leaves pages to the ordinary way, which tells their browsers what they may read."""

    def __init__(self, door: Door) -> None:
        self.path = door.path
        self.body_bytes_max = door.body_bytes_max
        self._door = door

    def take(self, exchange: DirectExchange) -> bool:
        return not is_page(exchange.scope) and self._door.take(exchange)
