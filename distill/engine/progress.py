"""How far a stage is, told to whoever asks, and the order to stop, told to the stage."""

import threading


class Stopped(Exception):
    """The stage was told to stop; it leaves nothing behind."""


class Progress:
    """Written by the stage's thread, read by the event loop."""

    def __init__(self) -> None:
        self.fraction = 0.0
        self._stop = threading.Event()

    def reach(self, done: int, total: int, *, start: float = 0.0, end: float = 1.0) -> None:
        """Say that `done` of `total` is behind us, within the part of the stage from `start` to `end`.

        Raises `Stopped` when nobody wants the rest.
        """
        self.fraction = start + (end - start) * (min(done / total, 1.0) if total else 1.0)
        if self._stop.is_set():
            raise Stopped

    def stop(self) -> None:
        self._stop.set()
