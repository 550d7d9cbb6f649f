"""Searching and retrieving: a question made ready, asked of the index, its hits checked, and put together."""

import contextlib
import time
from collections.abc import Sequence

from schemas.vectors import (
    DroppedHit,
    Gate,
    Hit,
    Part,
    RetrievedHit,
    RetrieveRequest,
    RetrieveResponse,
    SearchRequest,
    SearchResponse,
)
from services.errors import InvalidRequest
from vectord.backends import Query, Scored, Where
from vectord.engine.collections import Collections
from vectord.engine.embedding import Embedder, Vector, check_digest, model_of, no_model
from vectord.engine.gate import Gatekeeper, Limited
from vectord.engine.limits import Limits, at_most, check_text, checked_vector
from vectord.engine.metrics import Metrics
from vectord.engine.opened import Opened, refuse_changed
from vectord.engine.points import stored
from vectord.engine.ranking import Question, comparable, merge, search
from vectord.engine.recall import Recall
from vectord.engine.runner import Runner


class Searches:
    def __init__(
        self,
        collections: Collections,
        embedder: Embedder,
        gatekeeper: Gatekeeper,
        *,
        runner: Runner,
        limits: Limits,
        metrics: Metrics,
        recall: Recall,
    ) -> None:
        self._collections = collections
        self._embedder = embedder
        self._gatekeeper = gatekeeper
        self._runner = runner
        self._limits = limits
        self._metrics = metrics
        self._recall = recall

    async def search(self, name: str, request: SearchRequest, limited: Limited) -> SearchResponse:
        started = time.perf_counter()
        at_most("k", request.k, self._limits.k_max, param="k")
        with self._collections.use(name) as opened:
            gate = self._gatekeeper.admit(opened, request, limited)
            vector = await self._vector_of(opened, request)
            question = Question(
                request.mode,
                request.k,
                request.text,
                vector,
                request.exact,
                request.score_min,
                with_vector="vector" in request.with_,
                weights=_weights(request),
                ef=request.ef or opened.ef,
            )
            checked = self._gatekeeper.check(gate, await self._ask(opened, question, gate.where))
        return SearchResponse(
            hits=[_hit(hit, request.with_) for hit in checked.hits],
            took_ms=round((time.perf_counter() - started) * 1000, 3),
            exact=request.exact,
        )

    async def _vector_of(self, opened: Opened, request: SearchRequest) -> Vector | None:
        manifest = opened.manifest
        if request.text is not None:
            check_text(request.text, self._limits, param="text")
        _check_mode(opened, request.mode, param="mode")
        if request.mode == "sparse":
            return None
        if request.vector is not None:
            return checked_vector(request.vector, manifest.dimension, manifest.spec.distance, param="vector")
        if manifest.spec.model is None:
            raise no_model("vector")
        (vector,) = await self._embedder.embed(manifest, [str(request.text)], ["text"])
        refuse_changed(opened, manifest)
        return vector

    async def _ask(self, opened: Opened, question: Question, where: Where) -> list[Scored]:
        """The best hits of the index, best first. In hybrid mode the scores are those of the fusion."""
        started = time.perf_counter()
        hits = await self._runner.run(search, opened, question, where)
        self._metrics.search_seconds.labels(question.mode).observe(time.perf_counter() - started)
        if question.vector is not None:
            query = Query(question.k, question.vector, exact=question.exact, ef=question.ef)
            self._recall.offer(opened, query, where)
        if question.score_min is None:
            return hits
        return [hit for hit in hits if hit.score >= question.score_min]

    async def retrieve(self, request: RetrieveRequest, limited: Limited) -> RetrieveResponse:
        """One question to several collections, and one list of hits.

        Scores that can be compared (one collection, or dense search with the same model and distance) order
        the list; otherwise it is fused by rank, and the score is the fusion's.
        """
        at_most("k", request.k, self._limits.retrieve_k_max, param="k")
        check_text(request.query, self._limits, param="query")
        if len(set(request.collections)) != len(request.collections):
            raise InvalidRequest("a collection is named twice", param="collections")
        rankings: list[list[tuple[str, Scored]]] = []
        dropped: list[DroppedHit] = []
        seen = 0
        with contextlib.ExitStack() as held:
            asked = [
                held.enter_context(self._collections.use(name, param=f"collections.{number}"))
                for number, name in enumerate(request.collections)
            ]
            gates = [self._gatekeeper.admit(opened, request, limited) for opened in asked]
            vectors = await self._query_vectors(asked, request)
            for opened, gate in zip(asked, gates, strict=True):
                vector = vectors.get(opened.name)
                question = Question(
                    request.mode, request.k, request.query, vector, weights=_weights(request), ef=opened.ef
                )
                hits = await self._ask(opened, question, gate.where)
                checked = self._gatekeeper.check(gate, hits)
                seen += len(hits)
                rankings.append([(opened.name, hit) for hit in checked.hits])
                dropped += [
                    DroppedHit(collection=opened.name, id=record.id, role=record.role, reason=reason)
                    for record, reason in checked.dropped
                ]
        merged = merge(rankings, by_score=comparable(asked, request.mode))
        grant = next((gate.grant for gate in gates if gate.grant is not None), None)
        return RetrieveResponse(
            hits=[_retrieved(name, hit) for name, hit in merged[: request.k]],
            gate=Gate(
                role=request.role,
                canonical_role=grant.canonical if grant else None,
                checked=seen,
                dropped=dropped,
            ),
        )

    async def _query_vectors(self, asked: Sequence[Opened], request: RetrieveRequest) -> dict[str, Vector]:
        """The query's vector for each collection; a model embeds it once, and every digest is checked."""
        by_model: dict[str, tuple[Vector, Opened]] = {}
        vectors: dict[str, Vector] = {}
        for number, opened in enumerate(asked):
            _check_mode(opened, request.mode, param="mode")
            if request.mode == "sparse":
                continue
            model = model_of(opened.spec, param=f"collections.{number}")
            if model in by_model:
                check_digest(opened.manifest, str(by_model[model][1].manifest.model_digest))
            else:
                (vector,) = await self._embedder.embed(opened.manifest, [request.query], ["query"])
                by_model[model] = (vector, opened)
            vectors[opened.name] = by_model[model][0]
        return vectors


def _check_mode(opened: Opened, mode: str, *, param: str) -> None:
    if mode != "dense" and not opened.spec.hybrid:
        raise InvalidRequest(
            f"the collection {opened.name!r} was made with `hybrid: false`, so it has no index of words;"
            " search it with mode dense",
            code="not_hybrid",
            param=param,
        )


def _weights(request: SearchRequest | RetrieveRequest) -> tuple[float, float]:
    return (request.weights.dense, request.weights.sparse) if request.weights else (1.0, 1.0)


def _hit(hit: Scored, parts: Sequence[Part]) -> Hit:
    return Hit(score=hit.score, **dict(stored(hit.record, parts)))


def _retrieved(name: str, hit: Scored) -> RetrievedHit:
    record = hit.record
    return RetrievedHit(
        collection=name,
        id=record.id,
        score=hit.score,
        role=record.role,
        text=record.text,
        payload=record.payload,
    )
