"""Who changed what, seen from outside: by the name of the key that asked, whatever else a caller says."""

from pathlib import Path

import httpx
import pytest

from services.audit import AuditLog, account
from services.keys import KeyGrant, KeyStore
from tests.processes import running

pytestmark = pytest.mark.enable_socket


def test_changes_through_the_gateway_bear_the_key_s_name(tmp_path: Path) -> None:
    data = tmp_path / "data"
    keys = KeyStore(data)
    key, _ = keys.create(KeyGrant(name="recruiting", scopes=("admin",)))
    headers = {
        "authorization": f"Bearer {key}",
        "x-request-id": "asked-1",
        "x-stillhouse-principal": "somebody else",
    }
    with (
        running("vectord", tmp_path, env={"VECTORD_WORKERS": "1"}) as vectord,
        running("gateway", tmp_path, env={"GATEWAY_VECTORD_URLS": vectord.url}) as gateway,
        httpx.Client(base_url=f"{gateway.url}/v1", headers=headers, timeout=60, trust_env=False) as http,
    ):
        roles = {"roles": [{"name": "welder", "aliases": ["pipe welder"]}]}
        assert http.put("/roles", json=roles).status_code == 200
        assert http.put("/collections/notes", json={"dimension": 3, "gated": True}).status_code == 200
        assert http.delete("/collections/notes").status_code == 200
        assert http.put("/roles", json=roles, headers={"authorization": "Bearer sh-no"}).status_code == 401
    keys.revoke("recruiting")
    entries = AuditLog(data).entries()
    assert [(entry["change"], entry["subject"], entry["by"]) for entry in entries] == [
        ("key_created", "recruiting", account()),
        ("roles_replaced", "roles", "recruiting"),
        ("collection_created", "notes", "recruiting"),
        ("collection_deleted", "notes", "recruiting"),
        ("key_revoked", "recruiting", account()),
    ]
    assert [entry.get("request_id") for entry in entries] == [None, *["asked-1"] * 3, None]
    assert [entry["ts"] for entry in entries] == sorted(entry["ts"] for entry in entries)
    assert entries[3]["detail"]["from"]["gated"] is True
    (path,) = AuditLog(data).folder.glob("*.jsonl")
    assert path.stat().st_mode & 0o777 == 0o600
    assert key not in path.read_text()
