"""A collection's texts embedded again, by another model, while the old vectors are searched.

The new vectors go into another shard, which takes the place of the old one when it is whole.
"""

from dataclasses import replace

import structlog

from schemas.vectors import ReembedRequest, ReembedState
from services.errors import Conflict, Forbidden, NotFound, PlatformError
from services.tasks import TaskSet
from vectord.backends import Record
from vectord.engine.collections import Collections
from vectord.engine.disk import Manifest
from vectord.engine.embedding import Embedder, model_of
from vectord.engine.gate import Limited
from vectord.engine.limits import Limits, at_most
from vectord.engine.moves import Moves
from vectord.engine.opened import Opened

log = structlog.get_logger(__name__)


class Reembeds:
    """Begins them, and knows how far each is. A restart forgets one that was under way; nothing is lost."""

    def __init__(
        self,
        collections: Collections,
        moves: Moves,
        embedder: Embedder,
        *,
        limits: Limits,
        tasks: TaskSet,
    ) -> None:
        self._collections = collections
        self._moves = moves
        self._embedder = embedder
        self._limits = limits
        self._tasks = tasks

    async def start(self, name: str, request: ReembedRequest, limited: Limited) -> ReembedState:
        """Begin. Raises 409 when the vectors are of this model already, or the collection is being moved."""
        with self._collections.use(name) as opened:
            if limited is not None and opened.spec.gated:
                raise Forbidden(
                    "this key is limited to some job roles: embedding a gated collection again touches other"
                    " roles' points",
                    code="role_forbidden",
                )
            model = request.model or model_of(opened.spec, param="model")
            manifest = await self._manifest(opened, model)
            if opened.moving or (opened.reembed is not None and opened.reembed.state == "running"):
                raise Conflict(f"the collection {name!r} is being rebuilt already", code="collection_moving")
            opened.reembed = ReembedState(state="running", model=model, done=0, total=0)
            self._tasks.start(self._run(opened, manifest), name="reembed")
            return opened.reembed

    def state(self, name: str) -> ReembedState:
        """How far the last one is that this process began."""
        with self._collections.use(name) as opened:
            if opened.reembed is None:
                raise NotFound(
                    f"the collection {name!r} is not being embedded again", code="reembed_not_found"
                )
            return opened.reembed

    async def _manifest(self, opened: Opened, model: str) -> Manifest:
        dimension, digest = await self._embedder.probe(model)
        at_most("dimension", dimension, self._limits.dimension_max, param="model")
        before = opened.manifest
        if (before.spec.model, before.model_digest) == (model, digest):
            raise Conflict(
                f"the vectors of {opened.name!r} were made by {model!r} as it is now", code="same_model"
            )
        spec = before.spec.model_copy(
            update={"model": model, "dimension": None if before.spec.dimension is None else dimension}
        )
        return before.model_copy(update={"spec": spec, "dimension": dimension, "model_digest": digest})

    async def _run(self, opened: Opened, manifest: Manifest) -> None:
        def report(**fields: object) -> None:
            assert opened.reembed is not None
            opened.reembed = opened.reembed.model_copy(update=fields)

        async def embedded(records: list[Record]) -> list[Record]:
            texts = [record.text for record in records if record.text]
            if len(texts) < len(records):
                raise Conflict(
                    "there are points without a text, which cannot be embedded again; nothing has changed",
                    code="no_text",
                )
            vectors = await self._embedder.embed(manifest, texts, ["text"] * len(texts))
            return [replace(record, vector=vector) for record, vector in zip(records, vectors, strict=True)]

        try:
            await self._moves.rebuild(
                opened.name,
                manifest,
                progress=lambda done, total: report(done=done, total=total),
                transform=embedded,
            )
        except PlatformError as error:
            log.warning("not embedded again", collection=opened.name, reason=error.summary)
            report(state="failed", error=error.message)
        except BaseException:
            report(state="failed", error="it broke off; the log says why")
            raise
        else:
            log.info("embedded again", collection=opened.name, model=manifest.spec.model)
            report(state="done")
