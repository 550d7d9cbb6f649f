"""The running daemon picks up a newer roster or policy, and keeps the old one when the new one is broken."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.testing import client_for
from validators.app import SHIPPED_POLICY, create_app
from validators.settings import Settings

pytestmark = pytest.mark.anyio

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("worker_id", "first_name", "last_name", "status")),
        ("roles", pa.list_(pa.string())),
        *((name, pa.string()) for name in ("city", "state", "zip", "phone", "email")),
        ("date_of_birth", pa.date32()),
        ("certs", pa.list_(pa.struct([("code", pa.string()), ("expires", pa.date32())]))),
        ("blocked_clients", pa.list_(pa.string())),
        (
            "assignments",
            pa.list_(
                pa.struct(
                    [
                        ("order_id", pa.string()),
                        ("start", pa.timestamp("us", "UTC")),
                        ("end", pa.timestamp("us", "UTC")),
                    ]
                )
            ),
        ),
    ]
)


def write(path: Path, status: str) -> None:
    row = {
        "worker_id": "W-1",
        "first_name": "Robert",
        "last_name": "Young",
        "status": status,
        "roles": ["Janitor"],
        "city": "Columbus",
        "state": "OH",
        "zip": "43004",
        "phone": "+16145550100",
        "email": "r@example.com",
        "date_of_birth": None,
        "certs": [],
        "blocked_clients": [],
        "assignments": [],
    }
    other = path.with_suffix(".new")
    pq.write_table(pa.Table.from_pylist([row], SCHEMA), other)
    other.replace(path)


def request() -> dict[str, Any]:
    order = {
        "order_id": "O-1",
        "client_id": "C-1",
        "role": "Custodian",
        "city": "Columbus",
        "state": "Ohio",
        "count": 1,
        "start": "2026-11-02T22:00:00-05:00",
        "end": "2026-11-03T06:00:00-05:00",
    }
    artifact = {"order_id": "O-1", "fills": [{"worker_id": "W-1", "name": "Rob Young"}]}
    return {"kind": "fill", "artifact": artifact, "context": {"order": order}}


async def answer_until(client: httpx.AsyncClient, verdict: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            answer: dict[str, Any] = (await client.post("/v1/validate", json=request())).json()
            if answer.get("verdict") == verdict:
                return answer
            await asyncio.sleep(0.01)


async def reason_for_degraded(client: httpx.AsyncClient, name: str) -> str:
    async with asyncio.timeout(20):
        while True:
            state = (await client.get("/readyz")).json()
            if state["status"] == "degraded":
                return str(state["dependencies"][name]["reason"])
            await asyncio.sleep(0.01)


async def test_the_running_daemon_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "roster.parquet"
    write(path, "active")
    async with client_for(create_app(Settings(roster=path, roster_poll_s=0.02))) as client:
        first = await answer_until(client, "accepted")
        write(path, "inactive")
        second = await answer_until(client, "rejected")
        assert second["roster"]["sha256"] != first["roster"]["sha256"]
        assert [finding["code"] for finding in second["findings"]] == ["fill.worker_inactive"]

        path.write_bytes(b"PAR1 no roster")
        reason = await reason_for_degraded(client, "roster")
        assert "refused" in reason
        assert (await answer_until(client, "rejected"))["roster"] == second["roster"]
        assert "validators_roster_refused 1.0" in (await client.get("/metrics")).text


async def test_a_roster_may_come_after_the_start(tmp_path: Path) -> None:
    path = tmp_path / "roster.parquet"
    async with client_for(create_app(Settings(roster=path, roster_poll_s=0.02))) as client:
        assert (await client.post("/v1/validate", json=request())).status_code == 503
        write(path, "active")
        await answer_until(client, "accepted")
        assert (await client.get("/readyz")).json()["status"] == "ready"


def put(path: Path, text: str) -> None:
    other = path.with_suffix(".new")
    other.write_text(text)
    other.replace(path)


async def test_the_running_daemon_follows_the_policy(tmp_path: Path) -> None:
    roster, policy = tmp_path / "roster.parquet", tmp_path / "policy.toml"
    shipped = SHIPPED_POLICY.read_text()
    write(roster, "active")
    put(policy, shipped)
    settings = Settings(roster=roster, policy=policy, roster_poll_s=0.02)
    async with client_for(create_app(settings)) as client:
        first = await answer_until(client, "accepted")
        put(policy, shipped.replace('"janitor" = ["custodian"]', '"janitor" = ["sweeper"]'))
        second = await answer_until(client, "rejected")
        assert [finding["code"] for finding in second["findings"]] == ["fill.role_mismatch"]
        assert second["roster"] == first["roster"]
        assert second["validator"]["policy_version"] != first["validator"]["policy_version"]

        put(policy, shipped.replace("[sms]", "[text]"))
        reason = await reason_for_degraded(client, "policy")
        assert "the policy's `sms`" in reason
        assert second["validator"]["policy_version"] in reason
        assert (await answer_until(client, "rejected"))["validator"] == second["validator"]
        assert "validators_policy_refused 1.0" in (await client.get("/metrics")).text
        listed = (await client.get("/v1/validators")).json()
        assert listed["policy_version"] == second["validator"]["policy_version"]

        put(policy, shipped)
        assert (await answer_until(client, "accepted"))["validator"] == first["validator"]
        assert "validators_policy_refused 0.0" in (await client.get("/metrics")).text
