"""Answers by the mode: from the peers, from a cassette alone, or from the peers and into the cassette."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from distill.engine.replay.store import Key, Line, Store
from schemas.canonical import content_id
from schemas.replay import CallMode
from services.errors import Conflict, InvalidRequest

CASSETTES: Final = "cassettes"
CALLS: Final = "calls.jsonl"

Answer = TypeVar("Answer")


class RecordingMissing(Conflict):
    """The cassette has no answer to what a task asks."""

    code = "recording_missing"


@dataclass(frozen=True, slots=True)
class Told(Generic[Answer]):
    """An answer and when it was given."""

    answer: Answer
    at: str


def key_of(line: Line) -> Key:
    return line["key"], 0


class Tape:
    """Hands out answers and, in the mode `refresh`, keeps them. `store` is the cassette, if one is used."""

    def __init__(self, mode: CallMode, name: str, store: Store | None) -> None:
        assert (store is None) == (mode == "live")
        self._mode = mode
        self._name = name
        self._store = store

    async def ask(
        self,
        asked: dict[str, Any],
        kind: TypeAdapter[Answer],
        call: Callable[[], Awaitable[Answer]],
        *,
        task: str,
    ) -> Told[Answer]:
        """The answer to `asked`, a JSON value which is the whole of the question.

        Raises `RecordingMissing` naming the `task`, and what the peer fails with.
        """
        if self._store is None:
            return Told(await call(), _now())
        key = content_id(asked)
        if self._mode == "refresh":
            return await _recorded(self._store, key, kind, call)
        line = self._store.get((key, 0))
        if line is None:
            raise RecordingMissing(
                f"cassette {self._name!r} has no answer to what task {task} asks now; models, prompt, context"
                " or settings are others than when it was recorded: run once with the mode `refresh`"
            )
        if refusal := line.get("refusal"):
            raise InvalidRequest(refusal["message"], code=refusal["code"])
        try:
            return Told(kind.validate_python(line["answer"]), line["at"])
        except ValidationError:
            raise RecordingMissing(
                f"cassette {self._name!r} has an answer for task {task} that was written by a version of"
                " distill that this one cannot read: run once with the mode `refresh`"
            ) from None


async def _recorded(
    store: Store, key: str, kind: TypeAdapter[Answer], call: Callable[[], Awaitable[Answer]]
) -> Told[Answer]:
    """Ask, and keep the answer; that a request is refused as it is, is one."""
    try:
        told = Told(await call(), _now())
    except InvalidRequest as error:
        refusal = {"code": error.code, "message": error.message}
        store.put({"key": key, "at": _now(), "refusal": refusal})
        raise
    store.put({"key": key, "at": told.at, "answer": kind.dump_python(told.answer, mode="json")})
    return told


def cassette_of(data: Path, name: str, *, bytes_max: int) -> Store:
    return Store(data / CASSETTES / name / CALLS, key_of, bytes_max=bytes_max)


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
