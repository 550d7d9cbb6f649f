"""A vectord in memory: enough of it for the stage `index` and for retrieval, with ways to be wrong."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from services.clients import VectordClient
from services.http import PeerClient

Json = dict[str, Any]


@dataclass
class Shelf:
    """Texts are ranked by the words that they share with the question.

    `filters` off, it answers whatever is near, as an index would whose payloads are out of date. It goes down
    after `calls_left` calls that write.
    """

    points: dict[str, dict[str, Json]] = field(default_factory=dict)
    specs: dict[str, Json] = field(default_factory=dict)
    catalogue: list[str] = field(default_factory=list)
    filters: bool = True
    calls_left: int = 1 << 30
    refuses: str = "\0"
    upserts: list[list[str]] = field(default_factory=list)

    def client(self) -> VectordClient:
        return VectordClient(
            PeerClient("vectord", "http://vectord", transport=httpx.MockTransport(self._answer))
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        body = orjson.loads(request.content) if request.content else {}
        where = request.url.path.removeprefix("/v1/").split("/")
        routes: dict[tuple[str, str], Callable[[str, Json], httpx.Response]] = {
            ("GET", "roles"): self._roles,
            ("GET", "collections"): self._list,
            ("POST", "retrieve"): self._retrieve,
            ("PUT", "collections"): self._create,
            ("PUT", "points"): self._upsert,
            ("POST", "get"): self._get,
            ("POST", "scroll"): self._get,
            ("POST", "delete"): self._delete,
        }
        last = where[0] if len(where) < 3 else where[-1]
        return routes[request.method, last](where[1] if len(where) > 1 else "", body)

    # --- routes -----------------------------------------------------------------------------

    def _roles(self, _: str, __: Json) -> httpx.Response:
        return _ok({"roles": [{"name": name} for name in self.catalogue]})

    def _list(self, _: str, __: Json) -> httpx.Response:
        return _ok({"collections": [self._described(name) for name in self.specs]})

    def _create(self, name: str, body: Json) -> httpx.Response:
        if self.specs.setdefault(name, body) != body:
            return _error(409, "collection_exists", None)
        self.points.setdefault(name, {})
        return _ok(self._described(name))

    def _upsert(self, name: str, body: Json) -> httpx.Response:
        if self.calls_left == 0:
            raise httpx.ConnectError("down")
        self.calls_left -= 1
        for number, point in enumerate(body["points"]):
            if self.refuses in point["text"]:
                return _error(400, "text_refused", f"points.{number}.text")
        self.points[name] |= {point["id"]: point for point in body["points"]}
        self.upserts.append([point["id"] for point in body["points"]])
        return _ok({"upserted": len(body["points"]), "durability": "wal"})

    def _get(self, name: str, body: Json) -> httpx.Response:
        if self._unknown(body):
            return _error(400, "role_unknown", "role")
        ids = body.get("ids") or self.points[name]
        found = [self.points[name][one] for one in ids if one in self.points[name]]
        visible = [point for point in found if self._visible(name, point, body)]
        shown = [{"id": point["id"], "payload": point["payload"]} for point in visible]
        return _ok({"points": shown})

    def _delete(self, name: str, body: Json) -> httpx.Response:
        gone = [
            one
            for one in body["ids"]
            if one in self.points[name] and self._visible(name, self.points[name][one], body)
        ]
        for one in gone:
            del self.points[name][one]
        return _ok({"deleted": len(gone)})

    def _retrieve(self, _: str, body: Json) -> httpx.Response:
        if self._unknown(body):
            return _error(400, "role_unknown", "role")
        asked = set(_words(body["query"]))
        found = [
            (len(asked & set(_words(point["text"]))), name, point)
            for name in body["collections"]
            for point in self.points[name].values()
            if self._visible(name, point, body) and not (self.filters and _excluded(point, body["filter"]))
        ]
        found.sort(key=lambda one: (-one[0], one[2]["id"]))
        hits = [
            {
                "collection": name,
                "id": point["id"],
                "score": float(score),
                "role": point.get("role"),
                "text": point["text"],
                "payload": point["payload"],
            }
            for score, name, point in found[: body["k"]]
        ]
        gate: Json = {"role": body.get("role"), "canonical_role": None, "checked": len(hits), "dropped": []}
        return _ok({"hits": hits, "gate": gate})

    # --- rules ------------------------------------------------------------------------------

    def _unknown(self, body: Json) -> bool:
        role = body.get("role")
        return bool(self.catalogue) and role is not None and role not in self.catalogue

    def _visible(self, name: str, point: Json, body: Json) -> bool:
        return not self.specs[name]["gated"] or point["role"] == body["role"]

    def _described(self, name: str) -> Json:
        spec = self.specs[name]
        return {
            "name": name,
            "count": len(self.points.get(name, {})),
            "dimension": 3,
            "model": spec["model"],
            "model_digest": None,
            "distance": "cosine",
            "engine": "edge",
            "gated": spec["gated"],
            "hybrid": spec["hybrid"],
            "payload_indexes": spec["payload_indexes"],
            "index": "ready",
            "bytes": 0,
        }


def _excluded(point: Json, said: Json) -> bool:
    values = [
        (point["payload"].get(one["key"]), one.get("any") or [one["match"]]) for one in said["must_not"]
    ]
    return any(value in others for value, others in values)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _ok(body: Json) -> httpx.Response:
    return httpx.Response(200, json=body)


def _error(status: int, code: str, param: str | None) -> httpx.Response:
    kind = "conflict_error" if status == 409 else "invalid_request_error"
    error = {"message": code, "type": kind, "code": code, "param": param, "request_id": None}
    return httpx.Response(status, json={"error": error})
