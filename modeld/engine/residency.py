"""Loading a model when it is needed, and unloading it when nobody has asked for long enough."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, Generic, TypeVar

import structlog

from modeld.backends import ChatModel, Embedder, Offer
from services.tasks import TaskSet

log = structlog.get_logger(__name__)

FOR_EVER: Final = timedelta(microseconds=(2**63 - 1) // 1000)
"""What Ollama adds to the time of day when a model never expires: about 292 years."""

M = TypeVar("M", bound=Embedder | ChatModel)


class Resident(Generic[M]):
    """One model and whether it is in memory.

    `acquire` and `release` come in pairs. The model is unloaded when nobody holds it and its time has come;
    loading and unloading happen off the event loop, and a caller who gives up does not disturb the others.
    """

    def __init__(
        self,
        offer: Offer[M],
        tasks: TaskSet,
        *,
        keep_alive_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.offer = offer
        self.card = offer.card
        self._tasks = tasks
        self._default_s = self._keep_alive_s = keep_alive_s
        self._clock = clock
        self._model: M | None = None
        self._loading: asyncio.Task[M] | None = None
        self._users = 0
        self._idle_since = 0.0

    @property
    def loaded(self) -> bool:
        return self._model is not None

    @property
    def expires_at(self) -> datetime:
        """When it will be unloaded if nobody asks for it again."""
        if self._keep_alive_s < 0:
            return datetime.now(UTC) + FOR_EVER
        idle = 0.0 if self._users else self._clock() - self._idle_since
        return datetime.now(UTC) + timedelta(seconds=self._keep_alive_s - idle)

    async def acquire(self, keep_alive_s: float | None) -> M:
        """The model, loaded if need be. Every call sets anew how long it stays; None means the default."""
        self._keep_alive_s = self._default_s if keep_alive_s is None else keep_alive_s
        self._users += 1
        try:
            return await self._load()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        self._users -= 1
        self._idle_since = self._clock()
        self.expire()

    def expire(self) -> None:
        """Unload the model if its time has come."""
        if self._model is None or self._users or self._keep_alive_s < 0:
            return
        if self._clock() - self._idle_since >= self._keep_alive_s:
            model, self._model = self._model, None
            self._tasks.start(self._close(model), name=f"unload {self.card.name}")

    async def close(self) -> None:
        """Unload at once, whoever may still hold it. For the end of the process."""
        model, self._model = self._model, None
        if model is not None:
            await self._close(model)

    async def _load(self) -> M:
        if self._model is not None:
            return self._model
        if self._loading is None:
            self._loading = self._tasks.start(self._open(), name=f"load {self.card.name}")
        return await asyncio.shield(self._loading)

    async def _open(self) -> M:
        started = self._clock()
        try:
            self._model = await asyncio.to_thread(self.offer.load)
        finally:
            self._loading = None
        log.info("model loaded", model=self.card.name, duration_s=round(self._clock() - started, 3))
        return self._model

    async def _close(self, model: M) -> None:
        await asyncio.to_thread(model.close)
        log.info("model unloaded", model=self.card.name)
