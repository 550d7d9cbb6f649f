"""The audit log has every change of roles and collections: who asked for it, and what became of what."""

import pathlib
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from services.audit import AuditLog
from vectord.backends import EdgeStore

if TYPE_CHECKING:
    from tests.unit.vectord.conftest import Embedd, Open, Vectord

pytestmark = pytest.mark.anyio

NURSES = {"name": "nurse", "aliases": ["RN"], "compatible": []}
WELDERS: dict[str, Any] = {"name": "welder", "aliases": [], "compatible": ["nurse"]}
ASKED = {"x-stillhouse-principal": "ops", "x-request-id": "change-1"}
V = [1.0, 2.0, 3.0]


@pytest.fixture
def store() -> EdgeStore:
    return EdgeStore()


@pytest.fixture
def audit(tmp_path: pathlib.Path) -> AuditLog:
    return AuditLog(tmp_path)


async def ask(vectord: "Vectord", method: str, path: str, body: Any = None) -> Any:
    answer = await vectord.http.request(method, f"/v1{path}", json=body, headers=ASKED)
    assert answer.is_success, answer.text
    return answer.json()


async def embedded_again(vectord: "Vectord") -> None:
    with anyio.fail_after(30):
        while True:
            if (await vectord.call("GET", "/collections/c/reembed"))["state"] == "done":
                return
            await anyio.sleep(0.01)


def told(audit: AuditLog) -> list[tuple[str, str]]:
    return [(entry["change"], entry["subject"]) for entry in audit.entries()]


async def test_a_new_catalogue_is_told_by_what_went_and_came(vectord: "Vectord", audit: AuditLog) -> None:
    await ask(vectord, "PUT", "/roles", {"roles": [NURSES]})
    await ask(vectord, "PUT", "/roles", {"roles": [{**NURSES, "aliases": ["R.N."]}, WELDERS]})
    first, second = audit.entries()
    assert (first["change"], first["subject"]) == ("roles_replaced", "roles")
    assert (second["by"], second["request_id"]) == ("ops", "change-1")
    assert first["detail"]["from"]["roles"] == 0
    assert first["detail"]["to"] == second["detail"]["from"]
    assert second["detail"]["to"]["roles"] == 2
    assert second["detail"]["removed"] == {"count": 1, "rules": [{"role": "nurse", "alias": "RN"}]}
    added = second["detail"]["added"]
    assert added["rules"] == [
        {"role": "nurse", "alias": "R.N."},
        {"role": "welder"},
        {"role": "welder", "sees": "nurse"},
    ]
    assert added["count"] == 3


async def test_what_changes_nothing_or_is_refused_is_not_told(vectord: "Vectord", audit: AuditLog) -> None:
    await ask(vectord, "PUT", "/roles", {"roles": [NURSES]})
    await ask(vectord, "PUT", "/roles", {"roles": [NURSES]})
    await vectord.error("PUT", "/roles", {"roles": [NURSES, NURSES]})
    await vectord.error("PUT", "/roles", {"roles": []}, status=403, roles="nurse")
    await ask(vectord, "PUT", "/collections/c", {"dimension": 3})
    await ask(vectord, "PUT", "/collections/c", {"dimension": 3})
    await vectord.error("PUT", "/collections/c", {"dimension": 4}, status=409)
    await vectord.error("DELETE", "/collections/unknown", status=404)
    assert told(audit) == [("roles_replaced", "roles"), ("collection_created", "c")]


async def test_a_large_catalogue_makes_no_endless_line(vectord: "Vectord", audit: AuditLog) -> None:
    roles = [{"name": f"role {number}", "aliases": [f"alias {number}"]} for number in range(1500)]
    await ask(vectord, "PUT", "/roles", {"roles": roles})
    (entry,) = audit.entries()
    assert entry["detail"]["added"]["count"] == 3000
    assert len(entry["detail"]["added"]["rules"]) == 1000


async def test_a_collection_is_told_from_its_making_to_its_end(
    open_vectord: "Open", embedd: "Embedd", audit: AuditLog
) -> None:
    async with open_vectord() as vectord:
        await ask(vectord, "PUT", "/collections/c", {"model": "letters", "gated": True})
        points = [{"id": 1, "text": "abc", "role": "nurse"}, {"id": 2, "text": "abd", "role": "nurse"}]
        await ask(vectord, "PUT", "/collections/c/points", {"points": points})
        asked = {"queries": 1, "k": 1, "sweep": {"ef": [64]}, "target_recall": 0.1, "apply": True}
        await ask(vectord, "POST", "/collections/c/benchmark", {**asked, "role": "nurse"})
        made = await ask(vectord, "POST", "/collections/c/snapshots")
        embedd.digest = "sha256:two"
        await ask(vectord, "POST", "/collections/c/reembed", {})
        await embedded_again(vectord)
        await ask(vectord, "DELETE", "/collections/c")
        await ask(vectord, "POST", "/collections/d/restore", {"snapshot": made["name"], "collection": "c"})
    created, tuned, embedded, deleted, restored = audit.entries()
    assert {(entry["by"], entry["request_id"]) for entry in audit.entries()} == {("ops", "change-1")}
    assert created["change"] == "collection_created"
    assert created["detail"]["to"]["gated"] is True
    assert created["detail"]["to"]["model_digest"] == "sha256:one"
    assert tuned["change"] == embedded["change"] == "collection_changed"
    assert tuned["detail"] == {"from": {"ef": 256}, "to": {"ef": 64}}
    assert embedded["detail"] == {
        "from": {"model_digest": "sha256:one"},
        "to": {"model_digest": "sha256:two"},
    }
    assert (deleted["change"], deleted["subject"]) == ("collection_deleted", "c")
    assert deleted["detail"]["from"]["gated"] is True
    assert (restored["change"], restored["subject"]) == ("collection_restored", "d")
    assert restored["detail"]["source"] == {
        "collection": "c",
        "snapshot": made["name"],
        "sha256": made["sha256"],
    }
    assert restored["detail"]["to"]["gated"] is True


async def test_no_text_and_no_vector_is_told(vectord: "Vectord", audit: AuditLog) -> None:
    await ask(vectord, "PUT", "/collections/c", {"dimension": 3})
    point = {"id": 1, "vector": V, "text": "the night shift", "payload": {"city": "Toledo"}}
    await ask(vectord, "PUT", "/collections/c/points", {"points": [point]})
    await ask(vectord, "DELETE", "/collections/c")
    (path,) = audit.folder.glob("*.jsonl")
    text = path.read_text()
    assert "night shift" not in text
    assert "Toledo" not in text


async def test_who_asks_past_the_gateway_has_no_name(vectord: "Vectord", audit: AuditLog) -> None:
    await vectord.call("PUT", "/roles", {"roles": [NURSES]})
    (entry,) = audit.entries()
    assert entry["by"] == "unnamed"
    assert entry["request_id"]


async def test_what_cannot_be_told_is_not_done(
    open_vectord: "Open", audit: AuditLog, tmp_path: pathlib.Path
) -> None:
    async with open_vectord() as vectord:
        await ask(vectord, "PUT", "/collections/c", {"dimension": 3})
        (path,) = audit.folder.glob("*.jsonl")
        kept = path.rename(tmp_path / "kept")
        path.mkdir()
        for method, target, body in (
            ("PUT", "/roles", {"roles": [NURSES]}),
            ("PUT", "/collections/d", {"dimension": 3}),
            ("DELETE", "/collections/c", None),
        ):
            error = await vectord.error(method, target, body, status=503)
            assert error["code"] == "audit_unwritable"
            assert "do it again" in error["message"]
        await vectord.put("c", {"id": 1, "vector": V})  # points are data
        path.rmdir()
        kept.rename(path)
        assert (await vectord.call("GET", "/roles"))["roles"] == []
        listed = (await vectord.call("GET", "/collections"))["collections"]
        assert [item["name"] for item in listed] == ["c"]
        assert not [each for each in (tmp_path / "vectors").iterdir() if each.name.startswith(".making")]
        await ask(vectord, "DELETE", "/collections/c")
    assert told(audit) == [("collection_created", "c"), ("collection_deleted", "c")]
